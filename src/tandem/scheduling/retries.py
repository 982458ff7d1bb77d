"""Batches that ended badly and are to be run again: elsewhere, or as two."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from tandem.errors import BackendFailed
from tandem.scheduling.base import Batch, Item
from tandem.scheduling.device import Device

# A text that was alone on a device when it went down, and so often, is taken to be the cause.
_MOST_LOSSES = 3
# Devices that went down with the same batch before it is split: once may be chance.
_WHOLE_LOSSES = 1


class Retries:
    """First in, first out, but that halves go before all else: the way down to one bad text is then the depth, not the
    size, of what shares its batch."""

    def __init__(self) -> None:
        self._waiting: deque[Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._waiting)

    def failed(self, batch: Batch, device: Device, devices: Sequence[Device], error: BackendFailed) -> None:
        """``device`` answered with an error. A batch is split, down to the text that fails alone; that one is tried
        everywhere before it fails its request. One bad text fails nobody else's."""
        if len(batch.items) > 1:
            self._waiting.extendleft(reversed(batch.halves()))
            return
        once_more = msgspec.structs.replace(batch, failed_on=batch.failed_on | {device.id})
        if any(_may_run(once_more, other) for other in devices):
            self._waiting.appendleft(once_more)
        else:
            batch.items[0].group.fail(error)

    def lost(self, batch: Batch, error: BackendFailed) -> None:
        """A device went down with it. It is run again whole, then in halves, as it may be what ends the devices."""
        again = msgspec.structs.replace(batch, losses=batch.losses + 1)
        if again.losses <= _WHOLE_LOSSES:
            self._waiting.appendleft(again)
        elif len(batch.items) > 1:
            self._waiting.extendleft(reversed(again.halves()))
        elif again.losses < _MOST_LOSSES:
            self._waiting.appendleft(again)
        else:
            batch.items[0].group.fail(error)

    def take(self, device: Device, devices: Sequence[Device]) -> Batch | None:
        """The next that ``device`` may run: one that failed on it goes elsewhere as long as there is an elsewhere."""
        for index, batch in enumerate(self._waiting):
            if device.id not in batch.failed_on or not any(_may_run(batch, other) for other in devices):
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
        most = device.limits.max_tokens if device.limits else batch.tokens
        while len(batch.items) > 1 and len(batch.items) * batch.width > most:
            batch, rest = batch.halves()
            self._waiting.appendleft(rest)
        return batch


def _may_run(batch: Batch, device: Device) -> bool:
    return device.up and device.id not in batch.failed_on
