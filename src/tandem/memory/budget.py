"""From what a user allows and a device has to what a pool may hold."""

from __future__ import annotations

import math

import msgspec

from tandem.errors import ConfigError


class DeviceMemory(msgspec.Struct, frozen=True):
    """What a device has at start, in bytes. ``name`` as in ``cuda:0``."""

    name: str
    free_bytes: int
    total_bytes: int


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What the user allows, the model counted: a ``fraction`` of the device's memory, and ``limit_bytes`` at most."""

    fraction: float = 0.9
    limit_bytes: int | None = None


def pool_budget(device: DeviceMemory, allowance: Allowance, model_bytes: int, batch_bytes: int = 0) -> int:
    """The bytes that are left for a pool beside the model; at least ``batch_bytes``, the smallest batch of use.

    Raises ConfigError when they do not fit: with the sizes, and what would do.
    """
    if not 0 < allowance.fraction <= 1:
        raise ConfigError(f"a memory fraction is over 0 and at most 1, not {allowance.fraction:g}")
    share_bytes = int(device.total_bytes * allowance.fraction)
    asked_bytes = share_bytes if allowance.limit_bytes is None else min(share_bytes, allowance.limit_bytes)
    needed_bytes = model_bytes + batch_bytes
    if min(asked_bytes, device.free_bytes) >= needed_bytes:
        return min(asked_bytes, device.free_bytes) - model_bytes
    needs = f"the model needs {gib(model_bytes)} and a batch {gib(batch_bytes)}"
    if needed_bytes > device.total_bytes:
        raise ConfigError(f"{device.name} is too small: {needs}, it has {gib(device.total_bytes)} in all")
    if needed_bytes > device.free_bytes:
        raise ConfigError(
            f"{device.name} is full: {needs}, {gib(device.free_bytes)} of {gib(device.total_bytes)} are free, others "
            "hold the rest"
        )
    if share_bytes < needed_bytes:
        enough = math.ceil(100 * needed_bytes / device.total_bytes) / 100
        raise ConfigError(
            f"a memory fraction of {allowance.fraction:g} of {device.name} is {gib(share_bytes)}; {needs}: "
            f"{enough:g} would do"
        )
    raise ConfigError(f"a memory limit of {gib(asked_bytes)} on {device.name} is too small: {needs}")


def gib(nbytes: int) -> str:
    """For people, in GiB, or in MiB under one."""
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"
