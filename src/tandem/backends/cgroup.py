"""What the control groups of Linux grant this process, version 2 or 1; the tightest of its own group and those above.

Files that are not there or make no sense grant without limit, as on systems without control groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

# Version 1 says "no limit" with the largest multiple of a page that fits 63 bits.
_UNLIMITED_BYTES = 1 << 60


def cpu_quota(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """CPUs' worth of time; None for no limit."""
    return _least(root, membership, "cpu", (_cpus_v2, _cpus_v1))


def memory_limit_bytes(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """None for no limit."""
    found = _least(root, membership, "memory", (_memory_v2, _memory_v1))
    return None if found is None else int(found)


def _least(
    root: Path, membership: Path, controller: str, read: tuple[Callable[[Path], float | None], ...]
) -> float | None:
    found = [limit(folder) for folder in _groups(root, membership, controller) for limit in read]
    return min((limit for limit in found if limit is not None), default=None)


def _groups(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those above it. In a container they may show as the root itself."""
    yield from (root, root / controller)
    for line in _words(membership, "\n"):
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        folder = top / own.lstrip("/")
        if ".." in folder.parts:  # the group of another namespace, which does not show here
            continue
        while folder != top and top in folder.parents:
            yield folder
            folder = folder.parent


def _cpus_v2(folder: Path) -> float | None:
    return _share(_words(folder / "cpu.max"))


def _cpus_v1(folder: Path) -> float | None:
    return _share(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _share(words: list[str]) -> float | None:
    numbers = [int(word) for word in words if word.isdecimal()]
    return numbers[0] / numbers[1] if len(numbers) == len(words) == 2 and numbers[1] else None


def _memory_v2(folder: Path) -> float | None:
    return _bytes(folder / "memory.max")


def _memory_v1(folder: Path) -> float | None:
    return _bytes(folder / "memory.limit_in_bytes")


def _bytes(file: Path) -> float | None:
    words = _words(file)
    found = int(words[0]) if len(words) == 1 and words[0].isdecimal() else _UNLIMITED_BYTES
    return found if found < _UNLIMITED_BYTES else None


def _words(file: Path, separator: str | None = None) -> list[str]:
    try:
        return file.read_text(errors="replace").split(separator)
    except OSError:
        return []
