"""Profiles made up for tests: round numbers, no scatter."""

from __future__ import annotations

from typing import Any

import numpy as np

from tandem.scheduling.cost_model import Cost
from tandem.simulation.base import Workload
from tandem.simulation.fleet import Member
from tandem.simulation.profile import DeviceProfile
from tandem.types import Packing


def profile(name: str = "cpu", **changes: Any) -> DeviceProfile:
    """1 ms a batch and 50 us a token, one slot."""
    fields: dict[str, Any] = {
        "name": name,
        "device": "made up",
        "model": "tiny",
        "measured": not name.endswith("-derived"),
        "source": "a test",
        "cost": Cost(1e-3, 5e-5),
        "slots": 1,
        "speeds": (1.0,),
        "packing": Packing.FLAT,
        "max_batch_tokens": 1024,
        "max_width": 512,
    }
    return DeviceProfile(**fields | changes)


def fleet(*profiles: DeviceProfile) -> list[Member]:
    return [Member(f"{one.name}#{index}", one) for index, one in enumerate(profiles)]


def requests(times_s: list[float], lengths: list[int]) -> Workload:
    return Workload(np.array(times_s, np.float64), np.array(lengths, np.int64), "a test")


FAST = profile("fast", cost=Cost(1e-3, 1e-6), slots=2, in_turn=True, max_batch_tokens=8192)
SLOW = profile("slow")
