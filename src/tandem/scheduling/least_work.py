"""To the device that would be done with it first, had it to be decided now: join the shortest queue, in seconds.

Better than counting texts or batches, as work is predicted by each device's own cost model; still a decision made
before it must be, on predictions alone (compare ``earliest_finish``).
"""

from __future__ import annotations

from collections.abc import Sequence

from tandem.scheduling.device import Device
from tandem.scheduling.dispatch import EarlyDispatcher


class LeastWork(EarlyDispatcher):
    """Binds a text to the device with the least predicted work, the text's own included."""

    def assign(self, length: int, devices: Sequence[Device], now: float) -> Device | None:
        up = [device for device in devices if device.serves]
        return min(
            up,
            key=lambda device: device.outstanding_s(now) + device.cost.seconds(length, length * length, 1),
            default=None,
        )
