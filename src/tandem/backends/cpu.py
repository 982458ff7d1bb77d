"""What this process may use of the CPU: affinity, cgroup quota, instruction sets."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import msgspec

_CGROUP = Path("/sys/fs/cgroup")
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


def cpu_info(cgroup: Path = _CGROUP, cpuinfo: Path = Path("/proc/cpuinfo")) -> CpuInfo:
    """Read it from the operating system; what can not be read is left out."""
    model, flags = _read_cpuinfo(cpuinfo)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(cgroup)
    # Rounded down: a thread over the quota makes the kernel stop all of them for the rest of the period.
    cpus = affinity if quota is None else max(1, min(affinity, math.floor(quota + 0.05)))
    return CpuInfo(model, cpus, affinity, quota, flags)


def cgroup_quota(root: Path) -> float | None:
    """CPUs that the cgroup grants, v2 or v1, the smallest up the tree; None for no limit."""
    quotas = [_quota_v2(folder / "cpu.max") for folder in _own_groups(root)]
    quotas.append(_quota_v1(root / "cpu"))
    return min((quota for quota in quotas if quota is not None), default=None)


def _own_groups(root: Path) -> list[Path]:
    folders = [root]
    line = next((x for x in _read(Path("/proc/self/cgroup")).splitlines() if x.startswith("0::/")), "")
    own = root / line.removeprefix("0::/")
    while line and own != root and root in own.parents:
        folders.append(own)
        own = own.parent
    return folders


def _quota_v2(file: Path) -> float | None:
    fields = _read(file).split()
    return int(fields[0]) / int(fields[1]) if len(fields) == 2 and fields[0] != "max" else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


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
