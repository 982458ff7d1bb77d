"""Shares in proportion to a weight: measured performance, discounted by the load that a device already has.

The weight of a device for a text is ``speed / (1 + outstanding / own)``: its tokens a second for the text, by its cost
model, over the work that it has taken on in units of the text's own time. (The sketch that this mends takes 1 / last
run time for a weight, whatever ran, and calls the last run time the load.) Turns follow the weights by smooth weighted
round robin: each device earns its weight, the richest is served and pays the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

from tandem.scheduling.device import Device
from tandem.scheduling.dispatch import EarlyDispatcher


class Weighted(EarlyDispatcher):
    """Binds texts by smooth weighted round robin."""

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def assign(self, length: int, devices: Sequence[Device], now: float) -> Device | None:
        up = [device for device in devices if device.serves]
        if not up:
            return None
        weights = {device.id: _weight(device, length, now) for device in up}
        total = sum(weights.values())
        for device_id, weight in weights.items():
            self._credit[device_id] = self._credit.get(device_id, 0.0) + weight / total
        chosen = max(up, key=lambda device: self._credit[device.id])
        self._credit[chosen.id] -= 1.0
        return chosen


def _weight(device: Device, length: int, now: float) -> float:
    own_s = device.cost.seconds(length, length * length, 1)
    return device.rate / (1.0 + device.outstanding_s(now) / own_s)
