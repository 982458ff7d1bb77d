"""One failure opens it, only a probe closes it, and what comes and goes is tried and told of ever more seldom."""

from __future__ import annotations

import logging

import pytest

from tandem.caching.breaker import Breaker, BreakerOptions

OPTIONS = BreakerOptions(first_s=1.0, most_s=8.0, good_s=30.0)


def breaker() -> Breaker:
    return Breaker("the Redis cache", OPTIONS)


def test_the_first_failure_opens_it() -> None:
    it = breaker()
    assert it.state(0.0) == "ok"
    it.failed("did not answer within 50 ms", 100.0)
    assert not it.closed
    assert it.state(103.0) == "did not answer within 50 ms (given up 3 s ago)"


def test_a_probe_is_due_after_a_pause_and_one_at_a_time() -> None:
    it = breaker()
    assert not it.probe(0.0), "nothing to try"
    it.failed("is gone", 0.0)
    assert not it.probe(0.9)
    assert it.probe(1.0)
    assert not it.probe(1.0), "one is under way"
    it.give_up()
    assert it.probe(1.0)
    it.succeeded(1.5)
    assert it.closed


def test_pauses_double_to_a_limit() -> None:
    it = breaker()
    it.failed("is gone", 0.0)
    now, pauses = 0.0, []
    for _ in range(6):
        started = now
        while not it.probe(now):
            now += 0.5
        pauses.append(now - started)
        it.failed("is gone", now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_only_the_probe_counts_while_it_is_open() -> None:
    it = breaker()
    it.failed("is gone", 0.0)
    it.succeeded(0.1)
    assert not it.closed, "an answer from before"
    it.failed("is gone, a second call says", 0.2)
    assert it.probe(1.0), "the pause is as it was"


def test_coming_and_going_does_not_begin_anew_each_time() -> None:
    it = breaker()
    it.failed("is gone", 0.0)
    assert it.probe(1.0)
    it.succeeded(1.0)
    it.failed("is gone again", 2.0)
    assert not it.probe(3.9)
    assert it.probe(4.0), "twice the first pause"
    it.succeeded(4.0)
    it.failed("is gone after a good while", 34.0)
    assert it.probe(35.0), "the first pause"


def test_one_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tandem.caching")
    it = breaker()
    for now in range(10):
        it.failed("is gone", now / 10)
        it.succeeded(now / 10)
    assert it.probe(1.0)
    it.failed("is gone", 1.0)
    assert it.probe(3.0)
    it.succeeded(3.0)
    it.succeeded(3.1)
    assert [record.getMessage() for record in caplog.records] == [
        "the Redis cache is given up for now, as it is gone; next try in 1 s",
        "the Redis cache is back after 3 s",
    ]
    assert it.opened == 1
