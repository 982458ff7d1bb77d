"""Each device in turn, whatever it is and does: what most balancers do, and the way to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from tandem.scheduling.device import Device
from tandem.scheduling.dispatch import EarlyDispatcher


class RoundRobin(EarlyDispatcher):
    """Binds texts to the devices that are up, one after the other."""

    def __init__(self) -> None:
        self._next = 0

    def assign(self, length: int, devices: Sequence[Device], now: float) -> Device | None:
        up = [device for device in devices if device.serves]
        if not up:
            return None
        self._next += 1
        return up[self._next % len(up)]
