"""The scheduler's async shell: hands batches from the core to workers, and their rows to whoever waits.

Everything here runs in the event loop's thread. Nothing polls: a batch is cut when texts come and a worker has room,
or when a worker ends a batch. A worker has room for the batches that it computes and one more, so that a device never
waits for this loop; and no batch waits for company while a device is idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from tandem.clock import Clock
from tandem.errors import BackendFailed
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.core import SchedulerCore
from tandem.types import Outcome, Output, TokenBatch
from tandem.workers.base import Done, Worker

Observer = Callable[[Outcome], None]


class SchedulerLoop:
    """Runs a core over a worker."""

    def __init__(self, core: SchedulerCore, worker: Worker, clock: Clock, pad_id: int, observer: Observer) -> None:
        self.core = core
        self._worker = worker
        self._clock = clock
        self._pad_id = pad_id
        self._observer = observer
        self._outstanding = 0
        self._failure = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, group: Group, items: Sequence[Item]) -> None:
        """Compute a group's items; returns when all its rows are there. Cancelling it drops what still waits.

        Raises the tree's service errors.
        """
        self._loop = asyncio.get_running_loop()
        self.core.add(items, self._clock.now())
        self._pump()
        try:
            await group.future
        except asyncio.CancelledError:
            group.future.cancel()
            self.core.drop(group)
            raise

    async def warm(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Run a batch of each shape (n, s) on every stream. Raises BackendFailed when one fails."""
        for n, width in shapes:
            batch = TokenBatch(ids=np.full((n, width), self._pad_id, np.int32), lengths=np.full(n, width, np.int32))
            for done in await asyncio.gather(*(self._one(batch) for _ in range(self._worker.slots))):
                if done.rows is None:
                    raise BackendFailed(done.error or "the forward pass failed")

    def health(self) -> tuple[bool, str]:
        """False and why when the last batch failed."""
        return not self._failure, self._failure or "batches come back"

    def close(self) -> None:
        """Free the device once what runs has ended. Blocks; call from a thread."""
        self._worker.close()

    async def _one(self, batch: TokenBatch) -> Done:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Done] = loop.create_future()

        def from_any_thread(done: Done) -> None:
            loop.call_soon_threadsafe(future.set_result, done)

        self._worker.submit(batch, from_any_thread)
        return await future

    def _pump(self) -> None:
        """Give workers all they have room for."""
        while (free := self._worker.slots + 1 - self._outstanding) > 0:
            batch = self.core.next(self._clock.now(), max(1, free - 1))
            if batch is None:
                return
            self._outstanding += 1
            self._worker.submit(batch.pack(self._pad_id), self._on_done(batch))

    def _on_done(self, batch: Batch) -> Callable[[Done], None]:
        loop = self._loop
        assert loop is not None

        def from_any_thread(done: Done) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._done, batch, done)

        return from_any_thread

    def _done(self, batch: Batch, done: Done) -> None:
        self._outstanding -= 1
        outcome = done.outcome
        self.core.finish(batch, outcome)
        if done.rows is None:
            self._failure = done.error or "the forward pass failed"
            self.core.failed(batch, BackendFailed(self._failure))
        else:
            self._failure = ""
            self._settle(batch, done)
        self._pump()
        self._observer(outcome)

    def _settle(self, batch: Batch, done: Done) -> None:
        rows, outcome = done.rows, done.outcome
        assert rows is not None
        for place, item in enumerate(batch.items):
            row = rows[place, : item.length] if batch.output is Output.TOKENS else rows[place]
            item.group.settle(item.index, row, outcome.started_s - item.arrived_s, outcome.seconds)
