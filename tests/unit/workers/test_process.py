"""Worker processes that end in every way, and what their callers see of it."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import msgspec
import numpy as np
import pytest

from tandem.backends.fake import FakeBackend
from tandem.errors import BackendFailed
from tandem.types import Output
from tandem.workers.base import facts_of
from tandem.workers.handle import Child
from tandem.workers.messages import Ended, Hello
from tests import strange_backends
from tests.engines import batch_of
from tests.worker_bench import (
    CRASHING,
    GOOD,
    HANGING,
    STARVING,
    Start,
    spec,
    starting,
    until,
)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    with starting(monkeypatch) as begin:
        yield begin


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
    assert (done.lost, done.error) == (True, "the worker process gave no answer in 1.5 s (forward_timeout_s)")
    assert bench.goes_down() == "gave no answer in 1.5 s (forward_timeout_s)"
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


def test_a_restart_that_fails_is_tried_again(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = start(partial(strange_backends.starts_once, tmp_path))
    (tmp_path / "broken").touch()
    bench.kill()
    bench.goes_down()
    until(lambda: caplog.text.count("could not build its backend: broken") == 3)
    assert bench.run(GOOD).refused
    (tmp_path / "broken").unlink()
    bench.comes_up()
    bench.serves()


def test_another_backend_than_before_is_refused(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = start(partial(strange_backends.another_each_time, tmp_path))
    bench.kill()
    bench.goes_down()
    until(lambda: "came back as another backend" in caplog.text)
    assert bench.run(GOOD).refused


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
        assert bench.run(GOOD).refused
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    bench.comes_up()
    bench.serves()


def test_a_bug_in_the_keeper_ends_the_start(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(self: Child, timeout_s: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Child, "receive", buggy)
    with pytest.raises(BackendFailed, match="could not be kept: ZeroDivisionError"):
        start()


def test_the_keeper_outlives_what_goes_wrong(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def starved(*args: object, **kwargs: object) -> None:
        raise MemoryError("no memory for a process")

    bench = start()
    with monkeypatch.context() as changed:
        changed.setattr("subprocess.Popen.__init__", starved)
        bench.kill()
        until(lambda: caplog.text.count("could not be kept: MemoryError: no memory for a process; another") > 1)
        assert bench.run(GOOD).refused
    bench.comes_up()
    bench.serves()


def test_an_error_that_can_not_be_encoded_arrives(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    bench = start(strange_backends.Surrogates)
    assert bench.run(GOOD).error == r"the forward pass failed: no file caf\udce9"
    until(lambda: r"no file caf\udce9" in caplog.text)
    assert bench.news.empty()


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
