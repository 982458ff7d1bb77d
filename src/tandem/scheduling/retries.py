"""Batches that ended badly and are to be run again: in halves, elsewhere, or alone.

A batch that a device answered with an error is split, on that device, down to the text that fails alone; that one is
tried on every other device before it fails its request. One bad text fails nobody else's.

A batch that a device went down with may have been the cause, or its neighbour on another stream, or neither. It becomes
a suspect and is run again with nothing beside it; only what takes a device down then is held against it, and splits it
or, when it is one text that has done so often enough, fails it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from tandem.errors import BackendFailed
from tandem.scheduling.base import Batch, Item
from tandem.scheduling.device import Device
from tandem.types import Packing

# A text that was alone on a device when it went down, and so often, is taken to be the cause.
_MOST_LOSSES = 3


class Retries:
    """First in, first out, but that halves go before all else: the way down to one bad text is then the depth, not the
    size, of what shares its batch."""

    def __init__(self) -> None:
        self._waiting: deque[Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._waiting)

    def failed(self, batch: Batch, device: Device, devices: Sequence[Device], error: BackendFailed, now: float) -> None:
        """``device`` answered with an error."""
        if len(batch.items) > 1:
            first, second = batch.halves()
            self._waiting.extendleft(msgspec.structs.replace(half, home=device.id) for half in (second, first))
            return
        once_more = msgspec.structs.replace(batch, home="", failed_on=batch.failed_on | {device.id})
        if any(other.id not in once_more.failed_on and other.expected(now) for other in devices):
            self._waiting.appendleft(once_more)
        else:
            batch.items[0].group.fail(error)

    def lost(self, batch: Batch, error: BackendFailed) -> None:
        """A device went down with it."""
        if not batch.suspect:
            self._waiting.append(msgspec.structs.replace(batch, suspect=True, home=""))
        elif len(batch.items) > 1:
            self._waiting.extendleft(reversed(batch.halves()))
        elif batch.losses + 1 < _MOST_LOSSES:
            self._waiting.appendleft(msgspec.structs.replace(batch, losses=batch.losses + 1))
        else:
            batch.items[0].group.fail(error)

    def want_alone(self, device: Device, devices: Sequence[Device], now: float) -> bool:
        """Whether a suspect waits for ``device`` to have nothing else to do."""
        return any(batch.suspect and _for(batch, device, devices, now) for batch in self._waiting)

    def take(self, device: Device, devices: Sequence[Device], now: float) -> Batch | None:
        """The next that ``device`` may run."""
        for index, batch in enumerate(self._waiting):
            if _for(batch, device, devices, now) and not (batch.suspect and device.busy):
                del self._waiting[index]
                return self._fitting(batch, device)
        return None

    def clear(self) -> list[Item]:
        """Forget all; returns their texts."""
        items = [item for batch in self._waiting for item in batch.items]
        self._waiting.clear()
        return items

    def _fitting(self, batch: Batch, device: Device) -> Batch:
        """As much of it as the device takes: it may have been cut for a larger one."""
        while len(batch.items) > 1 and not _fits(batch, device):
            batch, rest = batch.halves()
            self._waiting.appendleft(rest)
        return batch


def _for(batch: Batch, device: Device, devices: Sequence[Device], now: float) -> bool:
    """Whether ``device`` is where it should run: where its first half failed, so that no other device is held up by
    it, and a text that failed there elsewhere, as long as an elsewhere is to be expected."""
    if batch.home not in ("", device.id):
        return not any(other.id == batch.home and other.expected(now) for other in devices)
    if device.id not in batch.failed_on:
        return True
    return not any(other.id not in batch.failed_on and other.expected(now) for other in devices)


def _fits(batch: Batch, device: Device) -> bool:
    if device.limits is None:
        return True
    room = min(device.limits.room(batch.width), device.most_tokens)
    return (len(batch.items) * batch.width if device.limits.packing is Packing.ONE_A_ROW else batch.tokens) <= room
