"""The scheduler's async shell: hands batches from the core to workers, and their rows to whoever waits.

Everything here runs in the event loop's thread. Nothing polls: a batch is cut when texts come and a worker has room,
or when a worker ends a batch. No batch waits for company while a device is idle. A worker also takes one batch more
than it computes, so that it need not wait for this loop, once enough waits to fill that one: cut earlier, it would only
go without the company that comes meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tandem.clock import Clock
from tandem.errors import BackendFailed, Draining, NotReady
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.core import SchedulerCore
from tandem.types import Outcome, Output, TokenBatch
from tandem.workers.base import Done, Worker

Observer = Callable[[Outcome], None]

# Texts in a row that must fail alone before the device is called unhealthy.
_FAILURES = 2


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
        self._failures = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, group: Group, items: Sequence[Item]) -> None:
        """Compute a group's items; returns when all its rows are there. Cancelling it drops what still waits.

        Raises the tree's service errors.
        """
        self._enter()
        self.core.add(items, self._clock.now())
        # Not at once: texts that arrive in one turn of the event loop should find each other.
        asyncio.get_running_loop().call_soon(self._pump)
        try:
            await group.future
        finally:
            if group.pending:
                group.future.cancel()
                self.core.drop(items)

    async def warm(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Run a batch of each shape (n, s) on every stream. Raises BackendFailed when one fails."""
        for n, width in shapes:
            batch = TokenBatch(ids=np.full((n, width), self._pad_id, np.int32), lengths=np.full(n, width, np.int32))
            for done in await asyncio.gather(*(self._one(batch) for _ in range(self._worker.slots))):
                if done.rows is None:
                    raise BackendFailed(done.error or "the forward pass failed")

    def health(self) -> tuple[bool, str]:
        """False and why when two texts in a row failed by themselves: one may be a bad text, and fails every batch that
        it is in on the way down to itself."""
        return self._failures < _FAILURES, self._failure or "batches come back"

    async def close(self) -> None:
        """Fail what waits, let what runs end, free the device. Idempotent."""
        self._closed = True
        self._pump()
        await asyncio.to_thread(self._worker.close)

    def halt(self) -> None:
        """End the device's threads from outside the event loop. Blocks until what runs has ended."""
        self._closed = True
        self._worker.close()

    def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise Draining("the engine is closed")
        if loop is not self._loop and self._outstanding:
            raise NotReady("the engine has work in another event loop; keep to one loop, or use Embedder")
        self._loop = loop

    async def _one(self, batch: TokenBatch) -> Done:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Done] = loop.create_future()

        def settle(done: Done) -> None:
            if not future.done():
                future.set_result(done)

        self._worker.submit(batch, lambda done: _call(loop, settle, done))
        return await future

    def _pump(self) -> None:
        """Give workers all they have room for."""
        if self._closed:
            self.core.fail_all(Draining("the engine was closed before this was computed"))
        try:
            self._fill()
        except BaseException as error:
            # A policy's bug, say. Nothing would wake those who wait.
            self.core.fail_all(BackendFailed(f"no batch could be cut: {error!r}"))
            raise

    def _fill(self) -> None:
        while (free := self._worker.slots - self._outstanding) > 0 or (free == 0 and self.core.full):
            batch = self.core.next(self._clock.now(), max(1, free))
            if batch is None:
                return
            try:
                self._worker.submit(self.core.arrays(batch, self._pad_id), self._on_done(batch))
            except BaseException as error:
                # Out of memory, say. Its slot stays free.
                self.core.abandon(batch, BackendFailed(f"a batch could not be handed over: {error!r}"))
                raise
            self._outstanding += 1

    def _on_done(self, batch: Batch) -> Callable[[Done], None]:
        loop = self._loop
        assert loop is not None, "only run() fills the queue"
        return lambda done: _call(loop, self._done, batch, done)

    def _done(self, batch: Batch, done: Done) -> None:
        self._outstanding -= 1
        if done.rows is None:
            self._failure = done.error or "the forward pass failed"
            self._failures += len(batch.items) == 1
            self.core.failed(batch, BackendFailed(self._failure))
        else:
            self._failure = ""
            self._failures = 0
            self._settle(batch, done)
        try:
            self.core.finish(batch, done.outcome)
        finally:
            self._pump()
        self._observer(done.outcome)

    def _settle(self, batch: Batch, done: Done) -> None:
        rows, outcome = done.rows, done.outcome
        assert rows is not None
        for place, item in enumerate(batch.items):
            row = rows[place, : item.length] if batch.output is Output.TOKENS else rows[place]
            item.group.settle(item.index, row, outcome.started_s - item.arrived_s, outcome.seconds)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """From any thread: call ``function`` in the loop. A loop that is closed has nobody left who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)
