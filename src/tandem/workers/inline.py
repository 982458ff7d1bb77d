"""A worker inside this process: one thread a stream, which spends its time in the engine with the GIL released."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

import numpy as np

from tandem.backends.base import Backend
from tandem.clock import Clock
from tandem.types import Outcome, TokenBatch
from tandem.workers.base import Done

log = logging.getLogger("tandem.workers")

_Job = tuple[TokenBatch, Callable[[Done], None]]


class InlineWorker:
    """Runs a backend in threads of this process."""

    def __init__(self, backend: Backend, clock: Clock, device_id: str = "cpu") -> None:
        self.device_id = device_id
        self.slots = backend.streams
        self._backend = backend
        self._clock = clock
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [Thread(target=self._serve, name=f"tandem-{device_id}-{i}") for i in range(self.slots)]
        for thread in self._threads:
            thread.daemon = True  # a forward pass that hangs must not keep the process from ending
            thread.start()

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        self._inbox.put((batch, on_done))

    def close(self) -> None:
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads:
            thread.join()
        self._backend.close()

    def _serve(self) -> None:
        while (job := self._inbox.get()) is not None:
            batch, on_done = job
            on_done(self._run(batch))

    def _run(self, batch: TokenBatch) -> Done:
        started_s = self._clock.now()
        rows, error = None, None
        try:
            rows = self._backend.run(batch)
            if not np.isfinite(rows.sum()):
                rows, error = None, "the forward pass gave a vector that is not finite"
        # The worker's boundary: whatever an engine throws must reach the caller as an error, not end this thread.
        except Exception as failure:
            log.exception("%s: a batch of shape %s failed", self.device_id, batch.ids.shape)
            error = f"the forward pass failed: {failure}"
        return Done(self._outcome(batch, started_s, error is None), rows, error)

    def _outcome(self, batch: TokenBatch, started_s: float, ok: bool) -> Outcome:
        lengths = batch.lengths.astype(np.int64)
        return Outcome(
            device_id=self.device_id,
            n=len(lengths),
            tokens=int(lengths.sum()),
            padded_tokens=batch.ids.size,
            sum_squares=int(lengths @ lengths),
            started_s=started_s,
            finished_s=self._clock.now(),
            ok=ok,
        )
