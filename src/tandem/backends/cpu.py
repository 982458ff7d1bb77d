"""What this process may use of the CPU: affinity, cgroup quota, instruction sets."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Sequence
from itertools import islice
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


class CorePlan(msgspec.Struct, frozen=True):
    """Core ids for the server and for each worker; None: any core that the process may use."""

    server: tuple[int, ...] | None
    workers: tuple[tuple[int, ...] | None, ...]


def plan_cores(cores: Sequence[int], workers: Sequence[int], server: int = 1) -> CorePlan:
    """Share ``cores`` (``usable_cores``) out. ``workers``: how many each wants, 0 for an equal part of what the others
    leave, which is what computing on the CPU wants. ``server``: how many the server should have.

    Workers overlap with nobody, or, where there are not enough cores, nobody is bound to any. The server has cores of
    its own where that costs the workers on the CPU no more than an eighth of theirs; else it shares theirs, since it
    needs a small part of the time that they need. On two cores a CPU worker has both, and so has the server.
    """
    takers = workers.count(0)
    rest = len(cores) - sum(workers)
    if rest < takers:
        return CorePlan(None, (None,) * len(workers))
    most = rest // 8 if takers else rest
    own = 0 if most < server else server if takers else rest
    free = iter(cores)
    mine = tuple(islice(free, own))
    share, more = divmod(rest - own, max(1, takers))
    shares: Iterator[int] = (share + (i < more) for i in range(takers))
    sets = tuple(tuple(islice(free, wanted or next(shares))) for wanted in workers)
    shared = sorted(core for wanted, found in zip(workers, sets, strict=True) if not wanted for core in found)
    return CorePlan(mine or tuple(shared) or None, sets)


def usable_cores(quota: float | None, root: Path = Path("/sys/devices/system/cpu")) -> tuple[int, ...]:
    """The cores that this process may use, neighbours side by side: by socket, by core, by thread of a core.

    None of them under a ``quota`` (``CpuInfo.quota``) of less: bound to the first few cores of a large host, this
    container would share them with every other one that did the same.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if quota is not None and quota < len(cores):
        return ()
    return tuple(sorted(cores, key=lambda core: (*_place(root / f"cpu{core}" / "topology"), core)))


def _place(topology: Path) -> tuple[int, int]:
    package, core = (_read(topology / name) for name in ("physical_package_id", "core_id"))
    return int(package or 0), int(core or 0)


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
