"""The scheduler's async shell: hands batches from the core to workers, and their rows to whoever waits.

Everything here runs in the event loop's thread. Nothing polls: a batch is cut when texts come and a worker has room,
when a worker ends a batch, when one goes down or comes back. No batch waits for company while a device is idle. A
worker also takes one batch more than it computes, so that it need not wait for this loop, once enough waits to fill
that one: cut earlier, it would only go without the company that comes meanwhile. The one timer there is watches over
texts that the slower devices left to a faster one: if that is late, they look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tandem.clock import Clock
from tandem.errors import BackendFailed, Draining, NotReady
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.core import SchedulerCore, drop
from tandem.scheduling.device import look_again_s
from tandem.scheduling.seat import Seat, health
from tandem.scheduling.ward import Ward
from tandem.scheduling.warm import post, warm
from tandem.types import Outcome, Output, Priority, TokenBatch
from tandem.workers.base import Done, Worker

Observer = Callable[[Outcome], None]

# The timer's shortest and longest wait.
_SOONEST_S, _LATEST_S = 0.001, 1.0
# After which a batch that a worker would not take is offered again, if nothing happens before.
_REFUSED_S = 0.05


class SchedulerLoop:
    """Runs a core over workers, ``workers[i]`` for ``core.devices[i]``."""

    def __init__(
        self, core: SchedulerCore, workers: Sequence[Worker], clock: Clock, pad_id: int, observer: Observer
    ) -> None:
        self.core = core
        self.seats = [Seat(device, worker) for device, worker in zip(core.devices, workers, strict=True)]
        self._seat_of = {seat.device.id: seat for seat in self.seats}
        self._clock = clock
        self._pad_id = pad_id
        self._observer = observer
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self.ward = Ward(core, self.seats, clock, pad_id, self._pump)

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
                drop(items)

    def hasten(self, item: Item, priority: Priority, due_s: float | None) -> None:
        """Another request waits for ``item`` as well."""
        self.core.hasten(item, priority, due_s, self._clock.now())

    async def warm(self, shapes: Sequence[Sequence[tuple[int, int]]]) -> None:
        """Run a batch of each shape (n, s) on every stream, ``shapes[i]`` on ``core.devices[i]``, all devices at once.
        A device that fails is unwell; raises BackendFailed when all do."""
        self._enter()
        pairs = list(zip(self.seats, shapes, strict=False))
        found = await asyncio.gather(*(warm(seat, own, self._pad_id) for seat, own in pairs), return_exceptions=True)
        failures = [one for one in found if isinstance(one, BaseException)]
        if failures and (len(failures) == len(pairs) or not isinstance(failures[0], BackendFailed)):
            raise failures[0]
        for (seat, _), failure in zip(pairs, found, strict=True):
            if failure is not None:
                self.ward.unwell(seat, str(failure))

    def health(self) -> tuple[bool, str]:
        """False and why when no device answers as it should. A device does not when it is down, or when two texts in a
        row failed on it by themselves: one may be a bad text, and fails every batch that it is in on the way down to
        itself."""
        return health(self.seats)

    async def close(self, *, at_once: bool = False) -> None:
        """Fail what waits, let what runs end unless ``at_once``, free the devices. Idempotent."""
        self._closed = True
        self._pump()
        await asyncio.gather(*(asyncio.to_thread(seat.worker.close, at_once) for seat in self.seats))

    def halt(self) -> None:
        """End the devices' threads from outside the event loop. Blocks until what runs has ended."""
        self._closed = True
        for seat in self.seats:
            seat.worker.close()

    def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise Draining("the engine is closed")
        if loop is not self.ward.loop:
            if any(seat.outstanding for seat in self.seats):
                raise NotReady("the engine has work in another event loop; keep to one loop, or use Embedder")
            self.ward.loop, self._timer = loop, None
        self.ward.heed()
        self.ward.require_device()

    def _pump(self) -> None:
        """Give workers all they have room for."""
        self.ward.heed()
        if self._closed:
            self.core.fail_all(Draining("the engine was closed before this was computed"))
        try:
            for device, batch in self.core.batches(self._clock.now()):
                self._hand_over(self._seat_of[device.id], batch)
        except BaseException as error:
            # A policy's bug, say. Nothing would wake those who wait.
            self.core.fail_all(BackendFailed(f"no batch could be cut: {error!r}"))
            raise
        if len(self.seats) > 1 and self._timer is None and self.core.waits:
            self._look_again()

    def _hand_over(self, seat: Seat, batch: Batch) -> None:
        try:
            arrays = seat.device.arrays(batch, self._pad_id, seat.worker.empty)
            seat.worker.submit(arrays, self._on_done(seat, batch, arrays))
        except BaseException as error:
            # Out of memory, say. Its slot stays free.
            self.core.abandon(seat.device, batch, BackendFailed(f"a batch could not be handed over: {error!r}"))
            raise
        seat.outstanding += 1

    def _look_again(self) -> None:
        loop = self.ward.loop
        if loop is None or not any(seat.device.up and seat.device.free_slots > 0 for seat in self.seats):
            return
        wait_s = min(_LATEST_S, max(_SOONEST_S, look_again_s(self.core.devices, self._clock.now())))
        self._timer = loop.call_later(wait_s, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._pump()

    def _on_done(self, seat: Seat, batch: Batch, arrays: TokenBatch) -> Callable[[Done], None]:
        loop = self.ward.loop
        assert loop is not None, "only run() fills the queue"
        return lambda done: post(loop, self._done, seat, batch, arrays, done)

    def _done(self, seat: Seat, batch: Batch, arrays: TokenBatch, done: Done) -> None:
        seat.outstanding -= 1
        error = BackendFailed(done.error or "the forward pass failed")
        if done.refused:
            if seat.refused():
                self.core.refused(seat.device, batch)
            else:
                self.core.abandon(seat.device, batch, error)
            # Not at once: what was in the way may still be.
            asyncio.get_running_loop().call_later(_REFUSED_S, self._pump)
            return
        try:
            if done.lost:
                self.core.lost(seat.device, batch, error)
            else:
                self.ward.heard(seat, len(batch.items), done)
                if done.rows is None:
                    self.core.failed(seat.device, batch, error)
                else:
                    _settle(batch, arrays, done)
        except BaseException as fault:
            # What is told of rows had a bug. Nothing else would wake those who wait.
            for item in batch.items:
                item.group.fail(BackendFailed(f"a row could not be passed on: {fault!r}"))
            raise
        finally:
            try:
                if not done.lost:
                    self.core.finish(seat.device, batch, done.outcome)
            finally:
                self._pump()
        self._observer(done.outcome)


def _settle(batch: Batch, arrays: TokenBatch, done: Done) -> None:
    rows, outcome = done.rows, done.outcome
    assert rows is not None
    found: Iterable[NDArray[np.float32]] = rows
    if batch.output is Output.TOKENS:
        flat, starts = rows.reshape(-1, rows.shape[-1]), arrays.starts().tolist()
        found = (flat[start : start + item.length] for start, item in zip(starts, batch.items, strict=True))
    for item, row in zip(batch.items, found, strict=True):
        item.group.settle(item.index, row, outcome.started_s - item.arrived_s, outcome.seconds)
