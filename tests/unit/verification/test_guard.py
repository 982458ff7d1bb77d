from __future__ import annotations

import logging

import numpy as np
import pytest

from tandem.errors import ConfigError
from tandem.verification import Alarm, Guard, GuardOptions, LearnerOptions, Promise
from tandem.verification.binomial import upper_bound


def trained(options: GuardOptions | None = None, n: int = 2_000) -> Guard:
    guard = Guard(Promise(0.05), options)
    for index in range(n):
        score = (index % 100) / 100
        guard.observe(score, right=score >= 0.5)
    return guard


def test_until_it_knows_it_serves_nothing_and_checks_everything() -> None:
    guard = Guard(Promise(0.05))
    assert all(guard.audit() for _ in range(100))
    assert not guard.serves(1.0)


def test_then_it_checks_a_share_and_serves() -> None:
    guard = trained()
    audits = sum(guard.audit() for _ in range(4_000))
    assert 150 < audits < 250
    assert guard.serves(0.6)
    assert not guard.serves(0.4)
    assert "serves at" in guard.report().words


def test_a_full_window_that_proves_nothing_is_not_checked_all_over_again() -> None:
    options = GuardOptions(learner=LearnerOptions(window=2_000))
    guard = Guard(Promise(0.05), options)
    for index in range(2_000):
        assert guard.audit()
        guard.observe(0.5, right=index % 2 == 0)
    assert guard.threshold() is None
    assert 150 < sum(guard.audit() for _ in range(4_000)) < 250
    guard.forget()
    assert all(guard.audit() for _ in range(100)), "an alarm begins anew"


def test_the_tally_says_what_the_report_says() -> None:
    guard = trained()
    tally, report = guard.tally(), guard.report()
    assert (tally.labels, tally.audited) == (report.learned.labels, report.audited)
    assert (tally.audited_wrong, tally.alarms) == (report.audited_wrong, report.alarms)


def test_the_coin_is_seeded() -> None:
    first, second, other = (trained(GuardOptions(seed=seed)) for seed in (1, 1, 2))
    tosses = [[guard.audit() for _ in range(200)] for guard in (first, second, other)]
    assert tosses[0] == tosses[1] != tosses[2]


def test_when_the_world_changes_it_stops_and_learns_anew(caplog: pytest.LogCaptureFixture) -> None:
    guard = trained()
    with caplog.at_level(logging.WARNING, "tandem.verification"):
        for _ in range(100):
            guard.observe(0.8, right=False)
            if not guard.serves(0.8):
                break
    assert guard.threshold() is None
    assert guard.report().alarms == 1
    assert [record.message for record in caplog.records] == [caplog.records[0].message]
    assert "promise of at most 5.00% wrong answers is broken" in caplog.text
    assert guard.audit()
    for index in range(2_000):
        guard.observe((index % 100) / 100, right=index % 100 >= 90)
    assert guard.serves(0.95)
    assert not guard.serves(0.8)
    assert "the alarm rang 1 times" in guard.report().words


def test_what_was_not_served_is_no_evidence_against_the_promise() -> None:
    guard = trained()
    before = guard.report().audited
    for _ in range(200):
        guard.observe(0.1, right=False)
        guard.observe(0.8, right=False, served=False)
    assert guard.report().audited == before


def test_the_audited_share_of_error_comes_with_its_exact_bound() -> None:
    assert Guard(Promise(0.05)).report().audited_bound == 1.0
    guard = trained()
    before = guard.report()
    for index in range(200):
        guard.observe(0.9, right=index >= 2)
    report = guard.report()
    assert (report.audited - before.audited, report.audited_wrong - before.audited_wrong) == (200, 2)
    assert report.audited_wrong / report.audited < report.audited_bound < 0.05
    assert report.audited_bound == upper_bound(report.audited_wrong, report.audited, 0.95)


def test_an_alarm_hears_a_change_after_a_long_time_of_peace() -> None:
    alarm = Alarm(0.05, 0.01)
    chance = np.random.default_rng(0)
    for wrong in chance.random(10_000) < 0.03:
        assert not alarm.observe(bool(wrong))
    count = 0
    while not alarm.observe(bool(chance.random() < 0.3)):
        count += 1
    assert count < 150


@pytest.mark.parametrize("max_error", [0.001, 0.01, 0.05, 0.2, 0.95])
def test_a_stream_of_errors_rings_and_a_stream_of_right_ones_never_does(max_error: float) -> None:
    good, bad = Alarm(max_error, 0.01), Alarm(max_error, 0.01)
    assert not any(good.observe(False) for _ in range(2_000))
    assert any(bad.observe(True) for _ in range(500))
    assert (len(good), good.wrong, good.rang) == (2_000, 0, False)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_without_audits_there_is_no_guard(share: float) -> None:
    with pytest.raises(ConfigError, match="without audits"):
        GuardOptions(audit_share=share)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_alarm_that_always_or_never_rings_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="false_alarm"):
        GuardOptions(false_alarm=share)
