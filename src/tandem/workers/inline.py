"""A worker inside this process: one thread a stream, which spends its time in the engine with the GIL released."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import Backend
from tandem.clock import Clock, SystemClock
from tandem.memory import PoolStatistics
from tandem.types import Outcome, Output, TokenBatch
from tandem.workers.base import Done, facts_of, outcome_of
from tandem.workers.callbacks import call

log = logging.getLogger("tandem.workers")

# A forward pass that takes longer has hung.
_CLOSE_S = 60.0
# Threads that have nothing to do end in less.
_AT_ONCE_S = 0.5

_CLOSED = "the device is closed"

_Job = tuple[TokenBatch, Callable[[Done], None]]


class Runner:
    """Runs batches one by one, from any thread; what goes wrong is an answer."""

    def __init__(self, backend: Backend, clock: Clock, device_id: str) -> None:
        self._backend = backend
        self._clock = clock
        self._device_id = device_id
        self._told = ""

    def run(self, batch: TokenBatch) -> Done:
        """Compute, and check what came."""
        started_s = self._clock.now()
        rows, error = None, None
        try:
            rows = self._backend.run(batch)
            error = _fault(rows, batch)
        # The worker's boundary: whatever an engine throws must reach the caller as an error, not end this thread.
        except Exception as failure:
            error = f"the forward pass failed: {failure}"
            # A batch that fails is run again in halves; one traceback will do.
            if error == self._told:
                log.error("%s: a batch of shape %s: %s", self._device_id, batch.ids.shape, error)
            else:
                log.exception("%s: a batch of shape %s failed", self._device_id, batch.ids.shape)
            self._told = error
        return Done(self.outcome(batch, started_s, error is None), None if error else rows, error)

    def outcome(self, batch: TokenBatch, started_s: float, ok: bool) -> Outcome:
        """Of a batch that has ended now."""
        return outcome_of(self._device_id, batch, started_s, self._clock.now(), ok=ok)


class InlineWorker:
    """Runs a backend in threads of this process."""

    def __init__(self, backend: Backend, clock: Clock, device_id: str = "cpu") -> None:
        self.device_id = device_id
        self.slots = backend.streams
        self.facts = facts_of(backend)
        self._backend = backend
        self._clock = clock
        self._runner = Runner(backend, clock, device_id)
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._closing = Lock()
        self._threads = [Thread(target=self._serve, name=f"tandem-{device_id}-{i}") for i in range(self.slots)]
        for thread in self._threads:
            thread.daemon = True  # a forward pass that hangs must not keep the process from ending
            thread.start()

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        with self._closing:
            if not self._closed:
                self._inbox.put((batch, on_done))
                return
        on_done(Done(self._runner.outcome(batch, self._clock.now(), False), error=_CLOSED))

    def watch(self, listener: Callable[[bool, str], None]) -> None:
        """Never: a device of this process goes down with it."""

    def statistics(self) -> PoolStatistics | None:
        return None

    def restart(self, why: str) -> None:
        """It can not: only a process of its own can be ended."""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        return np.empty(shape, np.int32)

    def close(self, at_once: bool = False) -> None:
        """``at_once``: a forward pass that runs is left to end, or not to, with the process."""
        with self._closing:
            self._closed = True
        if at_once:
            self._refuse_queued()
        for _ in self._threads:
            self._inbox.put(None)
        patience_s = _AT_ONCE_S if at_once else _CLOSE_S
        give_up_s = SystemClock.now() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_s - SystemClock.now()))
        if any(thread.is_alive() for thread in self._threads):
            log.error("%s: a forward pass has not ended in %g s; its model is not freed", self.device_id, patience_s)
        else:
            self._backend.close()

    def _refuse_queued(self) -> None:
        with suppress(Empty):
            while True:
                if (job := self._inbox.get_nowait()) is not None:
                    batch, on_done = job
                    outcome = self._runner.outcome(batch, self._clock.now(), False)
                    call(self.device_id, on_done, Done(outcome, error=_CLOSED, refused=True))

    def _serve(self) -> None:
        while (job := self._inbox.get()) is not None:
            batch, on_done = job
            call(self.device_id, on_done, self._runner.run(batch))


def _fault(rows: NDArray[np.float32], batch: TokenBatch) -> str | None:
    """What is wrong with a backend's answer. A token's row past its text's length may hold anything."""
    wanted = batch.ids.shape if batch.output is Output.TOKENS else batch.lengths.shape
    if rows.shape[:-1] != wanted:
        return f"the forward pass gave an array of shape {rows.shape} for a batch of shape {batch.ids.shape}"
    finite = np.isfinite(rows).all(axis=-1)
    if batch.output is Output.TOKENS:
        finite |= batch.segments() == 0
    return None if finite.all() else "the forward pass gave a vector that is not finite"
