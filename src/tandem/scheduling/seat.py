"""A device and its worker, and whether what comes back from it is any good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from tandem.memory import PoolStatistics
from tandem.scheduling.device import Device
from tandem.workers.base import Done, Worker

# Texts in a row that must fail alone before a device itself is put to the test.
_FAILURES = 2
# Times in a row that a worker which is up may have no room, 50 ms apart; then its batches fail.
_REFUSALS = 100


class DeviceState(msgspec.Struct, frozen=True):
    """``well``: it is up and its answers are right. ``pool``: where its inputs and outputs lie, None for none."""

    well: bool
    pool: PoolStatistics | None


class Seat:
    """``said``: why it is not well, or what its last batch failed with; empty when there is nothing to say.
    ``outstanding``: batches handed over whose end was not heard of. ``news``: what its worker last told of itself, up
    or not and why; None once it was heeded. Workers write it from their threads, all else is the event loop's."""

    def __init__(self, device: Device, worker: Worker) -> None:
        self.device = device
        self.worker = worker
        self.outstanding = 0
        self.said = ""
        self.news: tuple[bool, str] | None = None
        self._failures = 0
        self._refusals = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def well(self) -> bool:
        """Whether it is up and its answers are right."""
        return self.device.up and self.device.well and self._failures < _FAILURES

    def state(self) -> DeviceState:
        """For people and metrics."""
        return DeviceState(self.well, self.worker.statistics())

    def heard(self, texts: int, done: Done) -> bool:
        """How a batch of so many texts ended; whether it is time to see if the device is at fault."""
        if done.rows is not None:
            self.cleared()
            return False
        self.said = done.error or "the forward pass failed"
        self._failures += texts == 1
        return self._failures == _FAILURES and texts == 1

    def refused(self) -> bool:
        """Its worker would not take a batch; whether it should be offered again. A worker that is up and never has
        room must not keep its texts for ever."""
        self._refusals += self.device.up and self.news is None
        return self._refusals <= _REFUSALS

    def cleared(self) -> None:
        """Its answer was right."""
        self._refusals = 0
        self.said = ""
        self._failures = 0

    def turned(self, up: bool, why: str) -> None:
        """The worker went down or is back."""
        self.said = "" if up else f"{self.device.id} is down: {why}"
        self._failures = 0
        if up:
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)
            self._waiting.clear()

    async def back(self, timeout_s: float) -> None:
        """Wait until the worker is up again. Raises TimeoutError."""
        if not self.device.up or self.news is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await asyncio.wait_for(future, timeout_s)


def health(seats: Sequence[Seat]) -> tuple[bool, str]:
    """Whether any of them is well, and what there is to say of those that are not; empty when all are."""
    said = "; ".join(seat.said for seat in seats if seat.said)
    return any(seat.well for seat in seats), said
