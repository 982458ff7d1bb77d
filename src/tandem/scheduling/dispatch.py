"""Which device runs what: the contract, and the ways there are by name.

A way may bind a text to a device when it comes (early), or leave it in the queue that all devices share and say, when
a device has room, whether it should take from there (late). The core serves both, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from tandem.registry import Registry
from tandem.scheduling.device import Device
from tandem.scheduling.window import Window


class Pick(msgspec.Struct, frozen=True):
    """Cut a batch around the text whose turn is the ``position``-th from now, of those from there on, and of
    ``most_tokens`` at the most."""

    position: int
    most_tokens: int


class Dispatcher(Protocol):
    """Plain and synchronous, as the core; ``devices`` are all there are, those that are down too."""

    def assign(self, length: int, devices: Sequence[Device], now: float) -> Device | None:
        """The device for a text of ``length`` tokens that has just come; None leaves it to whichever asks for it."""
        ...

    def pick(self, device: Device, window: Window, devices: Sequence[Device], now: float) -> Pick | None:
        """What ``device`` should take from the shared ``window``, which is not empty; None to leave all of it to
        others."""
        ...


class EarlyDispatcher:
    """What the ways that bind early have in common: what nobody was there to take when it came is anybody's."""

    def pick(self, device: Device, window: Window, devices: Sequence[Device], now: float) -> Pick | None:
        return Pick(0, device.most_tokens)


DISPATCHERS: Registry[Callable[[], Dispatcher]] = Registry("dispatcher")
DISPATCHERS.register("earliest_finish", "tandem.scheduling.earliest_finish:EarliestFinish")
DISPATCHERS.register("least_work", "tandem.scheduling.least_work:LeastWork")
DISPATCHERS.register("weighted", "tandem.scheduling.weighted:Weighted")
DISPATCHERS.register("round_robin", "tandem.scheduling.round_robin:RoundRobin")
