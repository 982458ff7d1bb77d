"""Worker processes that end in every way, and what their callers see of it."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

import msgspec
import numpy as np
import pytest

from tandem.backends.base import Backend
from tandem.backends.fake import FakeBackend
from tandem.clock import SystemClock
from tandem.errors import BackendFailed
from tandem.types import Output, TokenBatch
from tandem.workers.base import Done, facts_of
from tandem.workers.handle import Child
from tandem.workers.ledger import RestartOptions
from tandem.workers.messages import Ended, Hello
from tandem.workers.process import ProcessWorker, WorkerSpec
from tests import strange_backends
from tests.conftest import REPOSITORY
from tests.engines import batch_of
from tests.strange_backends import CRASH_ID, HANG_ID, MEMORY_ID

GOOD = batch_of([[2, 9, 3], [2, 3]])
CRASHING, HANGING, STARVING = (batch_of([[2, token, 3]]) for token in (CRASH_ID, HANG_ID, MEMORY_ID))
AT_ONCE = RestartOptions(first_s=0.0)
NEVER = RestartOptions(first_s=3600.0, most_s=3600.0)


class Bench:
    """A worker, what it called back with, and what it told of itself."""

    def __init__(self, worker: ProcessWorker) -> None:
        self.worker = worker
        self.done: Queue[Done] = Queue()
        self.news: Queue[tuple[bool, str]] = Queue()
        worker.watch(lambda up, why: self.news.put((up, why)))

    def submit(self, batch: TokenBatch) -> None:
        self.worker.submit(batch, self.done.put)

    def run(self, batch: TokenBatch) -> Done:
        self.submit(batch)
        return self.next()

    def next(self) -> Done:
        return self.done.get(timeout=30)

    def goes_down(self) -> str:
        up, why = self.news.get(timeout=30)
        assert not up
        return why

    def comes_up(self) -> None:
        assert self.news.get(timeout=30) == (True, "serves")

    def serves(self) -> None:
        done = self.run(GOOD)
        assert done.error is None
        np.testing.assert_array_equal(done.rows, FakeBackend(strange_backends.OPTIONS).run(GOOD))

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.worker.pid is not None
        os.kill(self.worker.pid, number)


Start = Callable[..., Bench]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    benches = []

    def begin(build: Callable[[], Backend] = strange_backends.harmful, spec: WorkerSpec | None = None) -> Bench:
        spec = spec or WorkerSpec(device_id="cpu", build=build, restarts=AT_ONCE)
        benches.append(Bench(ProcessWorker(msgspec.structs.replace(spec, build=build), SystemClock())))
        return benches[-1]

    before = children()
    yield begin
    for bench in benches:
        bench.worker.close()
    assert children() <= before


def spec(restarts: RestartOptions = AT_ONCE, forward_timeout_s: float = 60.0, slab_bytes: int = 1 << 20) -> WorkerSpec:
    return WorkerSpec(
        device_id="cpu",
        build=strange_backends.harmful,
        restarts=restarts,
        forward_timeout_s=forward_timeout_s,
        slab_bytes=slab_bytes,
    )


def children() -> set[str]:
    """The ids of this process's children, zombies included."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


def until(state: Callable[[], bool]) -> None:
    """Wait for other threads."""
    for _ in range(30_000):
        if state():
            return
        Event().wait(0.001)
    pytest.fail("it never came to that")


def test_a_crash_loses_its_batch_and_the_next_is_right(start: Start) -> None:
    bench = start()
    before = bench.worker.pid
    done = bench.run(CRASHING)
    assert (done.lost, done.rows, done.error) == (True, None, "the worker process was ended by SIGKILL")
    assert not done.outcome.ok
    assert bench.goes_down() == "was ended by SIGKILL"
    bench.comes_up()
    bench.serves()
    assert bench.worker.pid != before


def test_a_kill_loses_what_runs_and_what_waits_each_once(start: Start) -> None:
    bench = start()
    for _ in range(20):
        bench.submit(HANGING)
    bench.kill()
    assert [bench.next().lost for _ in range(20)] == [True] * 20
    assert bench.goes_down()
    bench.comes_up()
    bench.serves()
    assert bench.done.empty()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE])
def test_the_signal_is_named(start: Start, number: signal.Signals) -> None:
    bench = start()
    bench.kill(number)
    assert bench.goes_down() == f"was ended by {number.name}"
    bench.comes_up()


def test_a_batch_that_hangs_is_lost_and_the_others_are_not_held_up(start: Start) -> None:
    bench = start(spec=spec(forward_timeout_s=1.5))
    bench.submit(HANGING)
    bench.serves()
    done = bench.next()
    assert (done.lost, done.error) == (True, "the worker process gave no answer in 1.5 s")
    assert bench.goes_down() == "gave no answer in 1.5 s"
    bench.comes_up()
    bench.serves()


def test_a_process_that_stands_still_has_hung(start: Start) -> None:
    bench = start(spec=spec(forward_timeout_s=1.5))
    bench.kill(signal.SIGSTOP)
    assert bench.run(GOOD).lost
    bench.goes_down()
    bench.comes_up()
    bench.serves()


def test_an_idle_worker_is_not_overdue(start: Start) -> None:
    bench = start(spec=spec(forward_timeout_s=0.5))
    bench.serves()
    with pytest.raises(Empty):
        bench.news.get(timeout=0.8)
    bench.serves()


def test_want_of_memory_is_an_ordinary_failure(start: Start) -> None:
    bench = start()
    done = bench.run(STARVING)
    assert not done.lost
    assert done.error == "the forward pass failed: no memory for token 8"
    bench.serves()
    assert bench.news.empty()


def test_a_worker_that_is_down_answers_at_once_and_closes_at_once(start: Start) -> None:
    bench = start(spec=spec(NEVER))
    bench.kill()
    bench.goes_down()
    bench.comes_up()
    bench.kill()
    bench.goes_down()
    done = bench.run(GOOD)
    assert done.lost
    assert done.error == "the worker process was ended by SIGKILL"
    late: Queue[tuple[bool, str]] = Queue()
    bench.worker.watch(lambda up, why: late.put((up, why)))
    assert late.get_nowait() == (False, "was ended by SIGKILL"), "who comes late is told too"
    bench.worker.close()
    assert bench.run(GOOD).error == "the device is closed"


def test_a_worker_begins_anew_when_asked(start: Start) -> None:
    bench = start()
    bench.submit(HANGING)
    bench.worker.restart("two texts in a row failed")
    assert bench.next().error == "the worker process was ended: two texts in a row failed"
    assert bench.goes_down() == "was ended: two texts in a row failed"
    bench.comes_up()
    bench.serves()


def test_a_restart_that_fails_is_tried_again(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = start(partial(strange_backends.starts_once, tmp_path))
    (tmp_path / "broken").touch()
    bench.kill()
    bench.goes_down()
    until(lambda: caplog.text.count("could not build its backend: broken") == 3)
    assert bench.run(GOOD).lost
    (tmp_path / "broken").unlink()
    bench.comes_up()
    bench.serves()


def test_another_backend_than_before_is_refused(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = start(partial(strange_backends.another_each_time, tmp_path))
    bench.kill()
    bench.goes_down()
    until(lambda: "came back as another backend" in caplog.text)
    assert bench.run(GOOD).lost


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (strange_backends.refuses, "could not build its backend: no device of this kind is here"),
        (strange_backends.has_a_bug, "could not build its backend: ZeroDivisionError: 3 / 0"),
        (strange_backends.leaves, "ended with exit code 3"),
        (strange_backends.dies, "was ended by SIGSEGV"),
        (partial(open, "/no/such/file"), "could not build its backend: FileNotFoundError: .*/no/such/file"),
    ],
)
def test_a_start_that_fails_says_why(start: Start, build: Callable[[], Any], why: str) -> None:
    with pytest.raises(BackendFailed, match=f"^cpu: the worker process {why}"):
        start(build)


def test_a_start_that_takes_too_long_is_given_up(start: Start) -> None:
    with pytest.raises(BackendFailed, match=r"was not ready in 0\.1 s"):
        start(strange_backends.never_ready, msgspec.structs.replace(spec(), start_timeout_s=0.1))


def test_a_module_that_the_child_does_not_have_is_named(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(BackendFailed, match="ModuleNotFoundError: No module named 'tests'"):
        start()


def test_what_can_not_be_pickled_is_refused_here(start: Start) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError), match="pickle"):
        start(lambda: FakeBackend())


def test_a_python_that_can_not_be_started(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(BackendFailed, match=r"could not be started: .*/no/such/python"):
        start()


def test_a_restart_waits_until_there_are_files_for_it(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    bench = start()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        bench.kill()
        bench.goes_down()
        until(lambda: caplog.text.count("could not be started: [Errno 24] Too many open files") > 1)
        assert bench.run(GOOD).lost
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    bench.comes_up()
    bench.serves()


def test_a_bug_in_the_keeper_ends_the_start(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(self: Child, timeout_s: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Child, "receive", buggy)
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)
    with pytest.raises(BackendFailed, match="was ended by SIGKILL"):
        start()


@pytest.mark.parametrize(
    "packet",
    [
        b"\xff\xff",
        b"Segmentation fault",
        msgspec.msgpack.encode(Ended(99, 0.0, 0.0)),
        msgspec.msgpack.encode(Hello(facts_of(strange_backends.harmful()))),
        msgspec.msgpack.encode(["Ended", "0", 0.0, 0.0, None]),
    ],
)
def test_nonsense_from_a_child_ends_it(start: Start, packet: bytes) -> None:
    bench = start(partial(strange_backends.Liar, packet))
    done = bench.run(GOOD)
    assert done.lost
    assert "said what makes no sense" in str(done.error)
    bench.goes_down()
    bench.comes_up()


def test_a_grandchild_that_holds_the_line_hides_no_end(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = start(strange_backends.with_a_child_of_its_own)
    bench.kill()
    bench.goes_down()
    bench.comes_up()
    bench.worker.close()
    grandchildren = [int(record.message.split()[1]) for record in caplog.records if "grandchild" in record.message]
    assert len(grandchildren) == 2
    for pid in grandchildren:
        os.kill(pid, signal.SIGKILL)


def test_signals_to_the_whole_group_are_for_the_parent(start: Start) -> None:
    bench = start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        bench.kill(number)
    bench.serves()
    assert bench.news.empty()


def test_a_child_is_born_as_it_should_be(
    start: Start, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    start(strange_backends.tells_of_itself, msgspec.structs.replace(spec(), cpus=(core,), threads=3))
    assert os.sched_getaffinity(0) == before
    told = [(record.levelno, record.message) for record in caplog.records if record.name == "tandem.tests"]
    assert told[:4] == [
        (logging.INFO, f"cores [{core}]"),
        (logging.INFO, "threads 3"),
        (logging.INFO, "core file 0"),
        (logging.INFO, "group its own"),
    ]
    assert [level for level, _ in told[4:]] == [logging.ERROR], "what is not for everybody stays there"
    assert capfd.readouterr().out == "", "standard output is not a child's"


def test_rows_too_large_for_the_slab_come_up_all_the_same(start: Start) -> None:
    bench = start(spec=spec(slab_bytes=8192))
    long = batch_of([list(range(10, 500))] * 4, output=Output.TOKENS)
    for _ in range(3):
        done = bench.run(long)
        np.testing.assert_array_equal(done.rows, FakeBackend(strange_backends.OPTIONS).run(long))
    bench.serves()


def test_a_steady_state_takes_nothing_from_the_system(start: Start) -> None:
    bench = start(spec=spec())
    for _ in range(50):
        bench.serves()
    before = bench.worker.statistics()
    for _ in range(500):
        bench.serves()
    after = bench.worker.statistics()
    assert (after.store_allocations, after.misses) == (1, before.misses)
    assert after.in_use_bytes == before.in_use_bytes


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
