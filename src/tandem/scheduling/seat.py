"""A device and its worker, and whether what comes back from it is any good."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tandem.memory import PoolStatistics
from tandem.scheduling.device import Device
from tandem.workers.base import Done, Worker

# Texts in a row that must fail alone before a device is called unwell.
_FAILURES = 2


class DeviceState(msgspec.Struct, frozen=True):
    """``well``: it is up and its answers are right. ``pool``: where its inputs and outputs lie, None for none."""

    well: bool
    pool: PoolStatistics | None


class Seat:
    """``said``: why it is unwell, or what its last batch failed with; empty when there is nothing to say.
    ``outstanding``: batches handed over whose end was not heard of."""

    def __init__(self, device: Device, worker: Worker) -> None:
        self.device = device
        self.worker = worker
        self.outstanding = 0
        self.said = ""
        self._failures = 0

    @property
    def well(self) -> bool:
        """Whether it is up and its answers are right."""
        return self.device.up and self._failures < _FAILURES

    def state(self) -> DeviceState:
        """For people and metrics."""
        return DeviceState(self.well, self.worker.statistics())

    def heard(self, texts: int, done: Done) -> None:
        """How a batch of so many texts ended. A worker whose texts fail alone, one after the other, is asked to begin
        anew; one that can not is unwell until a batch comes back."""
        if done.lost:
            return
        if done.rows is not None:
            self.said = ""
            self._failures = 0
            return
        self.said = done.error or "the forward pass failed"
        self._failures += texts == 1
        if self._failures == _FAILURES and texts == 1:
            self.worker.restart(self.said)

    def turned(self, up: bool, why: str) -> None:
        """The worker went down or is back."""
        self.said = "" if up else f"{self.device.id} is down: {why}"
        self._failures = 0


def health(seats: Sequence[Seat]) -> tuple[bool, str]:
    """Whether any of them is well, and what there is to say of those that are not; empty when all are."""
    said = "; ".join(seat.said for seat in seats if seat.said)
    return any(seat.well for seat in seats), said
