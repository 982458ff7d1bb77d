"""Worker processes under test: what they called back with, and what they told of themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Event

import msgspec
import numpy as np
import pytest

from tandem.backends.base import Backend
from tandem.backends.fake import FakeBackend
from tandem.clock import SystemClock
from tandem.types import TokenBatch
from tandem.workers.base import Done
from tandem.workers.ledger import RestartOptions
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
        return self.done.get(timeout=60)

    def goes_down(self) -> str:
        """Once it is known how it ended."""
        while True:
            up, why = self.news.get(timeout=60)
            assert not up
            why, due, _ = why.partition("; another starts in ")
            if due:
                return why

    def comes_up(self) -> None:
        while not (news := self.news.get(timeout=60))[0]:
            pass
        assert news == (True, "serves")

    def serves(self) -> None:
        done = self.run(GOOD)
        assert done.error is None
        np.testing.assert_array_equal(done.rows, FakeBackend(strange_backends.OPTIONS).run(GOOD))

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.worker.pid is not None
        os.kill(self.worker.pid, number)


Start = Callable[..., Bench]


@contextmanager
def starting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Workers, which are closed afterwards and have left no process behind."""
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
    for _ in range(60_000):
        if state():
            return
        Event().wait(0.001)
    pytest.fail("it never came to that")
