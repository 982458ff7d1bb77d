"""Devices by name: ``cpu+h100-derived*2`` to profiles, and profiles to the scheduler's own devices."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.batching import POLICIES
from tandem.errors import ConfigError
from tandem.scheduling.cost_model import CPU_PRIOR, GPU_PRIOR
from tandem.scheduling.device import Device, DeviceOptions
from tandem.simulation.base import Lengths
from tandem.simulation.profile import DeviceProfile, HostProfile, Shape, load_profile
from tandem.types import Outcome, Packing

_PART = re.compile(r"(?P<name>[^*+\s]+)(\*(?P<count>\d+))?")
_MOST = 256


class Member(msgspec.Struct, frozen=True):
    """One device of a fleet; ``id`` is its own."""

    id: str
    profile: DeviceProfile


def parse_fleet(text: str, model: str) -> list[Member]:
    """``name``, ``name*count`` or a sum of those. Raises ConfigError naming the part that is wrong."""
    members: list[Member] = []
    for part in text.split("+"):
        found = _PART.fullmatch(part.strip())
        if found is None:
            raise ConfigError(f"devices {text!r}: {part!r} is not NAME or NAME*COUNT")
        count = int(found["count"] or 1)
        if not 1 <= count <= _MOST:
            raise ConfigError(f"devices {text!r}: from 1 to {_MOST} of a kind, got {count}")
        profile = load_profile(found["name"], model)
        ids = [profile.name] if count == 1 else [f"{profile.name}#{index}" for index in range(1, count + 1)]
        members += [Member(each, profile) for each in ids]
    if len({member.id for member in members}) < len(members):
        raise ConfigError(f"devices {text!r}: one name stands there twice; write NAME*COUNT")
    if len({member.profile.model for member in members}) > 1:
        raise ConfigError(f"devices {text!r}: their profiles are of different models")
    return members


def build_devices(fleet: Sequence[Member], policy: str, latency_objective_s: float) -> list[Device]:
    """The scheduler's devices, as a server makes them: with a prior for their kind, warmed up by a few batches."""
    make = POLICIES.get(policy)
    devices = []
    for member in fleet:
        profile = member.profile
        options = DeviceOptions(
            id=member.id,
            slots=profile.slots,
            limits=profile.limits,
            prior=GPU_PRIOR if profile.packing is Packing.FLAT else CPU_PRIOR,
            latency_objective_s=latency_objective_s,
        )
        device = Device(make(profile.limits), options)
        for shape in _warm_up(profile):
            seconds = profile.seconds(shape) / profile.speed(profile.slots)
            n, padded, squares = shape.n, shape.padded_tokens, shape.sum_squares
            device.cost.observe(Outcome(member.id, n, padded, padded, squares, 0.0, seconds))
        devices.append(device)
    return devices


def capacity(fleet: Sequence[Member], lengths: Lengths) -> float:
    """Requests a second that the fleet does when all its batches are full and hold no padding."""
    return sum(member.profile.streams_speed / float(least_work_s(member.profile, lengths).mean()) for member in fleet)


def host_of(fleet: Sequence[Member]) -> HostProfile | None:
    """What the server costs: of the first profile that says."""
    return next((member.profile.host for member in fleet if member.profile.host), None)


def least_work_s(profile: DeviceProfile, lengths: Lengths) -> NDArray[np.float64]:
    """Device seconds that each text needs at the least, in a full batch without padding: float64 [n]. A batch holds
    ``max_batch_tokens`` or one text, so of its fixed cost a text bears its share of the tokens or more."""
    cost = profile.cost
    share = (lengths / profile.max_batch_tokens).clip(max=1.0)
    work_s: NDArray[np.float64] = (
        cost.fixed_s * share + cost.token_s * lengths + cost.square_s * lengths**2 + cost.text_s
    )
    return work_s


def _warm_up(profile: DeviceProfile) -> list[Shape]:
    widths = [width for width in (16, 32, 64, 128, 256) if width <= profile.max_width]
    full = [(max(1, profile.max_batch_tokens // width), width) for width in widths]
    return [Shape(n * width, n * width * width, n) for n, width in [(1, width) for width in widths] + full]
