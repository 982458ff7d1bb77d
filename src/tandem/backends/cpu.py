"""What this process may use of the CPU: affinity, cgroup quota, instruction sets."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import msgspec

from tandem.backends.cgroup import cpu_quota

_SHOWN = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
)


class CpuInfo(msgspec.Struct, frozen=True):
    """``cpus``: how many CPUs' worth of time this process gets; ``flags``: the instruction sets that matter here."""

    model: str
    cpus: int
    affinity: int
    quota: float | None
    flags: tuple[str, ...]

    @property
    def native_bf16(self) -> bool:
        return not {"avx512_bf16", "amx_bf16"}.isdisjoint(self.flags)


def cpu_info() -> CpuInfo:
    """Read it from the operating system; what can not be read is left out."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return describe_cpu(Path("/proc/cpuinfo"), affinity, cpu_quota())


def describe_cpu(cpuinfo: Path, affinity: int, quota: float | None) -> CpuInfo:
    """``affinity``: the CPUs that the scheduler may put this process on; ``quota``: the cgroup's, None for no limit."""
    model, flags = _read_cpuinfo(cpuinfo)
    # Rounded down: a thread over the quota makes the kernel stop all of them for the rest of the period.
    cpus = affinity if quota is None else max(1, min(affinity, math.floor(quota + 0.05)))
    return CpuInfo(model, cpus, affinity, quota, flags)


def _read_cpuinfo(file: Path) -> tuple[str, tuple[str, ...]]:
    fields: dict[str, str] = {}
    for line in _read(file).splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    found = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name") or platform.processor() or platform.machine(), tuple(
        f for f in _SHOWN if f in found
    )


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
