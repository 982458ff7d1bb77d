"""What callers see of a worker process that ends, or is to: each batch is answered once, and as what it was."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Event, Thread

import numpy as np
import pytest

from tandem.backends.fake import FakeBackend
from tandem.clock import SystemClock
from tandem.errors import MemoryExhausted
from tandem.memory.stores import SharedStore
from tandem.types import Output
from tandem.workers.handle import Child
from tandem.workers.process import ProcessWorker
from tests import strange_backends
from tests.conftest import REPOSITORY
from tests.engines import batch_of
from tests.worker_bench import (
    CRASHING,
    GOOD,
    HANGING,
    NEVER,
    Bench,
    Start,
    children,
    spec,
    starting,
    until,
)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    with starting(monkeypatch) as begin:
        yield begin


def test_a_kill_loses_what_was_sent_and_refuses_what_waits_each_once(start: Start) -> None:
    bench = start()
    for _ in range(20):
        bench.submit(HANGING)
    bench.kill()
    answers = [bench.next() for _ in range(20)]
    assert sum(done.lost for done in answers) == 4, "two that ran, two that were sent ahead"
    assert sum(done.refused for done in answers) == 16, "they had nothing to do with it"
    assert bench.goes_down()
    bench.comes_up()
    bench.serves()
    assert bench.done.empty()


def test_a_worker_that_is_down_answers_at_once_and_closes_at_once(start: Start) -> None:
    bench = start(spec=spec(NEVER))
    bench.kill()
    bench.goes_down()
    bench.comes_up()
    bench.kill()
    bench.goes_down()
    done = bench.run(GOOD)
    assert (done.lost, done.refused) == (False, True)
    assert done.error == "the worker process was ended by SIGKILL; another starts in 3600 s"
    late: Queue[tuple[bool, str]] = Queue()
    bench.worker.watch(lambda up, why: late.put((up, why)))
    assert late.get_nowait() == (False, "was ended by SIGKILL; another starts in 3600 s"), "who comes late is told too"
    bench.worker.close()
    assert bench.run(GOOD).error == "the device is closed"


def test_a_worker_begins_anew_when_asked(start: Start) -> None:
    bench = start()
    bench.submit(HANGING)
    bench.worker.restart("two texts in a row failed")
    assert bench.run(GOOD).refused, "from that moment on"
    assert bench.next().error == "the worker process was ended: two texts in a row failed"
    assert bench.goes_down() == "was ended: two texts in a row failed"
    bench.comes_up()
    bench.serves()


def test_callbacks_that_raise_end_nothing(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def raises(*args: object) -> None:
        raise ZeroDivisionError

    bench = start()
    bench.worker.watch(raises)
    for _ in range(3):
        bench.worker.submit(GOOD, raises)
    bench.serves()
    bench.worker.submit(CRASHING, raises)
    until(lambda: "is back" in caplog.text)
    bench.serves()
    assert caplog.text.count("cpu: a callback failed") >= 6


def test_who_listens_hears_of_an_end_before_it_is_certain(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    told, dead = Event(), Event()
    end = Child.end

    def slowly(self: Child) -> str:
        assert told.wait(60)
        assert dead.wait(60)
        return end(self)

    bench = start()
    monkeypatch.setattr(Child, "end", slowly)
    bench.worker.watch(lambda up, why: told.set())
    for _ in range(6):
        bench.submit(HANGING)
    bench.kill()
    assert [bench.next().refused for _ in range(2)] == [True] * 2, "those that waited"
    assert bench.run(GOOD).refused
    dead.set()
    assert [bench.next().lost for _ in range(4)] == [True] * 4


def test_want_of_memory_here_refuses_the_batch(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SharedStore, nbytes: int) -> None:
        raise MemoryExhausted("the system gives none")

    bench = start(spec=spec(slab_bytes=8192))
    monkeypatch.setattr(SharedStore, "allocate", full)
    done = bench.run(batch_of([list(range(10, 500))] * 4, output=Output.TOKENS))
    assert (done.lost, done.refused) == (False, True)
    assert "no memory for a batch of shape (4, 490)" in str(done.error)
    bench.serves()
    assert bench.news.empty()


def test_times_lie_between_handing_over_and_hearing(start: Start) -> None:
    bench = start()
    before_s = SystemClock.now()
    outcome = bench.run(GOOD).outcome
    assert before_s <= outcome.started_s <= outcome.finished_s <= SystemClock.now()


def test_closing_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    gc.collect()
    files, threads, before = os.listdir("/proc/self/fd"), threading.enumerate(), children()
    bench = Bench(ProcessWorker(spec(), SystemClock()))
    for batch in (GOOD, CRASHING):
        bench.run(batch)
    bench.goes_down()
    bench.comes_up()
    rows = bench.run(GOOD).rows
    closing = [Thread(target=bench.worker.close) for _ in range(3)]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(30)
    assert bench.worker.pid is None
    assert threading.enumerate() == threads
    assert children() <= before
    np.testing.assert_array_equal(rows, FakeBackend(strange_backends.OPTIONS).run(GOOD))
    del rows, bench, closing, thread
    gc.collect()
    assert os.listdir("/proc/self/fd") == files
    assert "tandem-pool" not in Path("/proc/self/maps").read_text()


def test_closing_ends_what_hangs(start: Start) -> None:
    bench = start(spec=spec(forward_timeout_s=1.5))
    bench.submit(HANGING)
    bench.submit(GOOD)
    bench.worker.close()
    assert sorted(bench.next().lost for _ in range(2)) == [False, True]
    assert bench.news.empty(), "nobody need wait for it to come back"


@pytest.mark.parametrize("stopped", [False, True])
def test_closing_at_once_waits_for_nothing(start: Start, stopped: bool) -> None:
    bench = start(spec=spec(forward_timeout_s=3600.0))
    for _ in range(6):
        bench.submit(HANGING)
    if stopped:
        bench.kill(signal.SIGSTOP)
    patient = Thread(target=bench.worker.close)
    patient.start()
    bench.worker.close(at_once=True)
    patient.join(60)
    assert not patient.is_alive(), "who waited for the ordinary close need not wait any more"
    answers = [bench.next() for _ in range(6)]
    assert [done.lost for done in answers].count(True) == 4
    assert [done.refused for done in answers].count(True) == 2
    assert bench.worker.pid is None


def test_closing_at_once_ends_a_start(start: Start, tmp_path: Path) -> None:
    bench = start(partial(strange_backends.starts_once_then_hangs, tmp_path))
    bench.kill()
    until((tmp_path / "again").exists)
    bench.worker.close(at_once=True)
    assert bench.worker.pid is None
