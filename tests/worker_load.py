"""A load on a worker that may be killed under it, and the backends for that; each function is a worker's ``build``."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Semaphore, Thread

import numpy as np
from numpy.typing import NDArray

from tandem.backends import BACKENDS, Backend, BackendOptions
from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.backends.graph_model import graph_model
from tandem.backends.openvino import OpenVinoBackend
from tandem.clock import SystemClock
from tandem.models.folder import ModelFolder
from tandem.models.loaded import load_model
from tandem.types import TokenBatch
from tandem.workers.base import Done
from tandem.workers.process import ProcessWorker

_PATIENCE_S = 60.0


def fake() -> Backend:
    return FakeBackend(FakeOptions(streams=2, fixed_s=0.002))


def real(folder: Path) -> Backend:
    model = load_model(ModelFolder(path=folder, name=folder.name, source="folder"))
    return BACKENDS.get(OpenVinoBackend.name)(graph_model(model), BackendOptions(threads=2, streams=2))


def batches(count: int, *, texts: int = 8, width: int = 32) -> list[TokenBatch]:
    """Texts of 8 tokens and more, one a row, no two alike."""
    chance = np.random.default_rng(3)
    places = np.arange(texts, dtype=np.int32) * width
    return [
        TokenBatch(
            ids=chance.integers(1000, 20_000, (texts, width)).astype(np.int32),
            lengths=chance.integers(8, width + 1, texts).astype(np.int32),
            places=places,
        )
        for _ in range(count)
    ]


class Load:
    """Runs ``cases``, batches and their right rows, round and round, a few ahead; what is lost is run again.

    What the scheduler does for its devices, in little.
    """

    def __init__(self, worker: ProcessWorker, cases: Sequence[tuple[TokenBatch, NDArray[np.float32]]]) -> None:
        self._worker = worker
        self._cases = cases
        self._again: deque[int] = deque()
        self._room = Semaphore(worker.slots + 2)
        self._up = Event()
        self._up.set()
        self._stop = Event()
        self._lock = Lock()
        self.submitted = self.answered = self.lost = self.wrong = 0
        self.good: SimpleQueue[Done] = SimpleQueue()
        """Every right answer."""
        worker.watch(lambda up, why: self._up.set() if up else self._up.clear())
        self._thread = Thread(target=self._run)
        self._thread.start()

    def kill(self) -> float:
        """Kill the worker's process while it computes; returns the seconds until the first right answer of another."""
        for _ in range(10):
            assert self.good.get(timeout=_PATIENCE_S).error is None
        pid = self._worker.pid
        assert pid is not None
        killed_s = SystemClock.now()
        os.kill(pid, signal.SIGKILL)
        while self.good.get(timeout=_PATIENCE_S).outcome.started_s <= killed_s or self._worker.pid in (None, pid):
            pass
        return SystemClock.now() - killed_s

    def close(self) -> None:
        """Let what runs end, and what was lost be run again."""
        self._stop.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        number = 0
        while True:
            assert self._room.acquire(timeout=_PATIENCE_S)
            assert self._up.wait(_PATIENCE_S)
            if self._again:
                self._submit(self._again.popleft())
            elif not self._stop.is_set():
                self.submitted += 1
                self._submit(number % len(self._cases))
                number += 1
            elif self.answered == self.submitted:
                return
            else:
                self._room.release()
                Event().wait(0.001)

    def _submit(self, case: int) -> None:
        batch = self._cases[case][0]
        ids = self._worker.empty(batch.ids.shape)
        ids[:] = batch.ids
        self._worker.submit(TokenBatch(ids=ids, lengths=batch.lengths, places=batch.places), partial(self._done, case))

    def _done(self, case: int, done: Done) -> None:
        with self._lock:
            if done.lost:
                self.lost += 1
                self._again.append(case)
            else:
                self.answered += 1
                right = done.rows is not None and np.allclose(done.rows, self._cases[case][1], atol=1e-5)
                self.wrong += not right
                self.good.put(done)
        self._room.release()
