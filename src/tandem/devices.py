"""``--device``: which devices serve, and how many workers each has.

``auto``, or names joined by ``+``: ``cpu``, ``cuda`` (every GPU), ``cuda:0``, ``cuda:0,1``. ``*2`` after a name starts
two workers on it. ``auto`` is the CPU and every GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import msgspec

from tandem.errors import ConfigError

AUTO = "auto"
CPU = "cpu"
GRAMMAR = "auto, or names joined by +, as cpu, cuda, cuda:0, cuda:0,1 or cpu*2 (two workers)"
_PART = re.compile(r"(?:(cpu)|cuda(?::(\d{1,3}(?:,\d{1,3})*))?)(?:\*([1-9]\d?))?", re.ASCII)


class DevicePlan(msgspec.Struct, frozen=True):
    """One worker to start. ``id`` is its name in metrics and messages; ``device`` is what it runs on, as ``cpu`` or
    ``cuda:0``, which it shares with ``sharing - 1`` others."""

    id: str
    device: str
    sharing: int = 1

    @property
    def on_cpu(self) -> bool:
        return self.device == CPU


def plan_devices(text: str, gpus: Sequence[int]) -> tuple[DevicePlan, ...]:
    """The workers that ``text`` asks for on a machine with ``gpus``. A GPU that is asked for and not there is planned
    all the same, ``cuda`` as the first: starting it will say what is missing. Raises ConfigError for what is no device.
    """
    if text == AUTO:
        wanted = [(CPU, 1), *((f"cuda:{index}", 1) for index in gpus)]
    else:
        wanted = [pair for part in text.split("+") for pair in _read(part.strip(), text, gpus)]
    names = [name for name, _ in wanted]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"device {text!r} names {name} twice; for two workers on it write {name}*2")
    return tuple(
        DevicePlan(name if count == 1 else f"{name}#{index}", name, count)
        for name, count in wanted
        for index in range(1, count + 1)
    )


def visible_gpus(devices: Path = Path("/dev"), env: Mapping[str, str] | None = None) -> tuple[int, ...]:
    """The indices of the NVIDIA GPUs that this process may see, as CUDA numbers them. Nothing is loaded for it."""
    there = len(list(devices.glob("nvidia[0-9]*")))
    allowed = (os.environ if env is None else env).get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        # CUDA stops at the first that names no device.
        named = takewhile(lambda part: part and not part.startswith("-"), map(str.strip, allowed.split(",")))
        there = min(there, len(list(named)))
    return tuple(range(there))


def _read(part: str, text: str, gpus: Sequence[int]) -> list[tuple[str, int]]:
    match = _PART.fullmatch(part)
    if match is None:
        raise ConfigError(f"device {text!r}: {part!r} is no device; give {GRAMMAR}")
    cpu, indices, count = match.groups()
    found = [CPU] if cpu else [f"cuda:{index}" for index in (map(int, indices.split(",")) if indices else gpus or (0,))]
    return [(name, int(count or 1)) for name in found]
