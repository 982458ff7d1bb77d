from __future__ import annotations

import numpy as np
import pytest

from tandem.types import Output
from tandem.workers.ledger import Flight, Ledger, RestartOptions, Restarts
from tandem.workers.messages import Job
from tandem.workers.slab import Cargo
from tests.engines import batch_of


def flight(number: int) -> Flight:
    job = Job(number, Output.POOLED, 1, (1, 3), (1, 16), 0, 0, 0, False, False)
    batch = batch_of([[2, 9, 3]])
    return Flight(batch, lambda done: None, Cargo(job, np.empty((1, 16), np.float32), (batch.ids, None)))


def numbers(flights: list[Flight]) -> list[int]:
    return [one.cargo.job.number for one in flights]


def handed_over(ledger: Ledger, now: float) -> list[int]:
    return numbers(list(iter(lambda: ledger.next(now), None)))


def filled(streams: int, count: int) -> Ledger:
    ledger = Ledger(streams, 10.0)
    for number in range(count):
        ledger.add(flight(number))
    return ledger


def test_a_process_gets_twice_what_it_runs() -> None:
    ledger = filled(2, 6)
    assert handed_over(ledger, 0.0) == [0, 1, 2, 3]
    assert ledger.waiting == 2
    assert ledger.ended(1, 1.0) is not None
    assert handed_over(ledger, 1.0) == [4]


def test_only_what_runs_can_be_overdue() -> None:
    ledger = filled(2, 3)
    assert ledger.due_s() is None, "nothing is there yet"
    handed_over(ledger, 5.0)
    assert ledger.due_s() == 15.0
    ledger.ended(0, 12.0)
    ledger.ended(1, 13.0)
    assert ledger.due_s() == 22.0, "the third began when the first had ended"
    ledger.ended(2, 14.0)
    assert ledger.due_s() is None


def test_one_that_hangs_is_overdue_however_many_others_end() -> None:
    ledger = filled(2, 4)
    handed_over(ledger, 0.0)
    for now, number in enumerate((1, 2, 3), 1):
        ledger.ended(number, float(now))
        assert ledger.due_s() == 10.0


def test_what_is_not_there_can_not_end() -> None:
    ledger = filled(1, 3)
    handed_over(ledger, 0.0)
    assert ledger.ended(0, 0.0) is not None
    assert ledger.ended(0, 0.0) is None, "it has ended before"
    assert ledger.ended(2, 0.0) is None, "it waits"
    assert ledger.ended(99, 0.0) is None


def test_clearing_gives_all_once_in_order() -> None:
    ledger = filled(1, 4)
    handed_over(ledger, 0.0)
    ledger.ended(0, 0.0)
    there, waiting = ledger.clear()
    assert (numbers(there), numbers(waiting)) == ([1], [2, 3])
    assert ledger.clear() == ([], [])
    assert ledger.due_s() is None


def test_the_first_restart_is_at_once_and_later_ones_wait_longer_up_to_a_limit() -> None:
    restarts = Restarts(RestartOptions())
    assert [restarts.delay_s(0.0) for _ in range(9)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert [restarts.delay_s(0.0) for _ in range(2000)][-1] == 30.0


@pytest.mark.parametrize(("served_s", "delay_s"), [(4.9, 1.0), (5.0, 0.0)])
def test_good_service_is_rewarded(served_s: float, delay_s: float) -> None:
    restarts = Restarts(RestartOptions())
    restarts.delay_s(0.0)
    restarts.delay_s(0.0)
    assert restarts.delay_s(served_s) == delay_s
