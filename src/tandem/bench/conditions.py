"""What a figure was measured on: machine, limits, versions, commit, workload. A number without these says little."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from tandem import __version__

PACKAGES = ("numpy", "openvino", "onnxruntime", "tokenizers", "uvicorn", "uvloop", "orjson", "msgspec")
BUSY_SHARE = 0.1
"""Above this share of the cores in others' use, a report says that its figures are disturbed."""


class Conditions(msgspec.Struct, frozen=True):
    """The machine and software of one run; sizes in bytes, ``busy_before`` a share of all cores from 0 to 1."""

    started: str
    cpu: str
    cores: int
    instruction_sets: list[str]
    cpu_limit: str
    memory_bytes: int
    memory_limit: str
    os: str
    python: str
    tandem: str
    commit: str
    versions: dict[str, str]
    busy_before: float
    workload: dict[str, str]

    def lines(self) -> list[str]:
        """For people: one fact a line."""
        limits = f"cpu limit {self.cpu_limit}, memory limit {self.memory_limit}"
        facts = [
            f"cpu       {self.cpu}, {self.cores} cores usable, {limits}",
            f"sets      {' '.join(self.instruction_sets) or 'none of the known ones'}",
            f"memory    {self.memory_bytes / 2**30:.1f} GiB",
            f"system    {self.os}, Python {self.python}",
            f"versions  tandem {self.tandem} ({self.commit}), "
            + ", ".join(f"{name} {number}" for name, number in self.versions.items()),
            f"started   {self.started}, {self.busy_before:.0%} of the cores were busy before",
        ]
        facts += [f"{name:<9} {value}" for name, value in self.workload.items()]
        return facts


def conditions(workload: dict[str, str]) -> Conditions:
    """Read them now, before anything of the benchmark runs; takes half a second to see how busy the machine is."""
    return Conditions(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpuinfo("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        instruction_sets=_instruction_sets(),
        cpu_limit=_cgroup("cpu.max"),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_limit=_cgroup("memory.max"),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        tandem=__version__,
        commit=_commit(),
        versions=_versions(),
        busy_before=_busy_share(0.5),
        workload=workload,
    )


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _instruction_sets() -> list[str]:
    flags = set(_cpuinfo("flags").split())
    return [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16") if name in flags]


def _cgroup(file: str) -> str:
    """This process's limit under cgroup v2, "none" where there is none, "unknown" where it can not be read."""
    membership = Path("/proc/self/cgroup")
    if not membership.is_file():
        return "unknown"
    own = next((line[4:] for line in membership.read_text().splitlines() if line.startswith("0::/")), "")
    for folder in (Path("/sys/fs/cgroup") / own, Path("/sys/fs/cgroup")):
        if (folder / file).is_file():
            return (folder / file).read_text().strip().replace("max", "none", 1)
    return "none"


def _commit() -> str:
    """The source's commit, with "+" when files were changed since; "no commit" outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


class Neighbours:
    """How much of the cores others used while a benchmark ran: all busy time, less this process's and its children's.

    Children count once they have ended, so ask when they have.
    """

    def __init__(self) -> None:
        self._times = _cpu_times()
        self._own_s = _own_s()

    def share(self) -> float:
        """From 0 to 1, of all cores; 0 where the system does not tell."""
        now = _cpu_times()
        if not now or not self._times:
            return 0.0
        spent = [b - a for a, b in zip(self._times, now, strict=True)]
        busy = sum(spent[:8]) - spent[3] - spent[4]
        own = (_own_s() - self._own_s) * os.sysconf("SC_CLK_TCK")
        return max(0.0, busy - own) / max(1, sum(spent[:8]))


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_share(seconds: float) -> float:
    """The share of all cores that was in use over the next ``seconds``, time stolen by the host counted as use."""
    before = _cpu_times()
    time.sleep(seconds)
    after = _cpu_times()
    if not before or not after:
        return 0.0
    spent = [b - a for a, b in zip(before, after, strict=True)]
    idle = spent[3] + spent[4]
    return 1 - idle / max(1, sum(spent[:8]))


def _cpu_times() -> list[int]:
    """user nice system idle iowait irq softirq steal ... of all cores, in ticks."""
    path = Path("/proc/stat")
    return [int(word) for word in path.read_text().splitlines()[0].split()[1:]] if path.is_file() else []
