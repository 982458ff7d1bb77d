from __future__ import annotations

import logging
from queue import Queue
from threading import Thread

import pytest

from tandem.clock import ManualClock, SystemClock
from tandem.workers import inline
from tandem.workers.base import Done
from tandem.workers.inline import InlineWorker
from tests.engines import POISON_ID, Device, batch_of


def test_times_are_the_clocks() -> None:
    clock, device, done = ManualClock(10.0), Device(), Queue[Done]()
    device.fault = lambda: clock.advance(2.5)
    worker = InlineWorker(device, clock)
    worker.submit(batch_of([[2, 9, 3]]), done.put)
    outcome = done.get(timeout=30).outcome
    worker.close()
    assert (outcome.started_s, outcome.finished_s, outcome.seconds) == (10.0, 12.5, 2.5)


def test_a_repeated_failure_is_told_in_full_once(caplog: pytest.LogCaptureFixture) -> None:
    done = Queue[Done]()
    worker = InlineWorker(Device(), SystemClock())
    for _ in range(4):
        worker.submit(batch_of([[2, POISON_ID, 3]]), done.put)
        done.get(timeout=30)
    worker.close()
    assert [record.exc_info is not None for record in caplog.records] == [True, False, False, False]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_a_forward_pass_that_hangs_does_not_keep_the_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "_CLOSE_S", 0.01)
    device = Device(shut=True)
    worker = InlineWorker(device, SystemClock())
    worker.submit(batch_of([[2, 9, 3]]), lambda done: None)
    assert device.arrived.acquire(timeout=30)
    worker.close()
    assert device.closed == 0, "an engine that computes must not be freed"
    assert "has not ended" in caplog.text
    device.door.set()


def test_closing_at_once_waits_for_no_forward_pass(caplog: pytest.LogCaptureFixture) -> None:
    device, done = Device(shut=True), Queue[Done]()
    worker = InlineWorker(device, SystemClock())
    for _ in range(3):
        worker.submit(batch_of([[2, 9, 3]]), done.put)
    assert device.arrived.acquire(timeout=30)
    worker.close(at_once=True)
    assert [done.get(timeout=30).refused for _ in range(2)] == [True, True], "what had not begun"
    assert device.closed == 0, "an engine that computes must not be freed"
    assert "has not ended" in caplog.text
    device.door.set()
    assert done.get(timeout=30).rows is not None


def test_a_callback_that_raises_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def raises(done: Done) -> None:
        raise ZeroDivisionError

    done = Queue[Done]()
    worker = InlineWorker(Device(), SystemClock())
    worker.submit(batch_of([[2, 9, 3]]), raises)
    worker.submit(batch_of([[2, 9, 3]]), done.put)
    assert done.get(timeout=30).rows is not None
    worker.close()
    assert "cpu: a callback failed" in caplog.text


def test_threads_end_with_the_worker() -> None:
    worker = InlineWorker(Device(), SystemClock())
    threads: list[Thread] = list(worker._threads)
    worker.close()
    assert not any(thread.is_alive() for thread in threads)
    assert all(thread.daemon for thread in threads)
