"""What serving brings onto a machine: the lock's pins, and the installed packages that our own needs pull in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LIMIT_BYTES = 600_000_000
FORBIDDEN = re.compile(
    r"torch.*|nvidia-.*|cuda-.*|triton|transformers|sentence-transformers|tensorflow.*|jax.*|scipy|pandas"
)


def pins(lock: str) -> dict[str, str]:
    """Name -> version of every ``name==version`` in a requirements file whose marker fits this machine."""
    found: dict[str, str] = {}
    # A pin goes on over its hashes by a backslash at the line's end.
    for line in lock.replace("\\\n", " ").splitlines():
        text = re.sub(r"\s+(--hash=\S+|#.*)", "", line).strip()
        if not text or text.startswith(("#", "--hash")):
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def unhashed(lock: str) -> list[str]:
    """The pins without a hash."""
    statements = (line.strip() for line in lock.replace("\\\n", " ").splitlines())
    return [line for line in statements if line and not line.startswith("#") and "--hash=sha256:" not in line]


def closure(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that ``requirements`` need, directly or not. Raises PackageNotFoundError."""
    found: dict[str, metadata.Distribution] = {}
    pending = [(Requirement(text), "") for text in requirements]
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            found[name] = metadata.distribution(name)
            needs = [Requirement(text) for text in found[name].requires or ()]
            pending += [(need, inner) for need in needs for inner in ("", *requirement.extras)]
    return found


def forbidden(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if FORBIDDEN.fullmatch(name))


def installed_bytes(distribution: metadata.Distribution) -> int:
    """The sum of the sizes of its files, by its RECORD: what pip wrote, compiled files included."""
    paths = (Path(str(file.locate())) for file in distribution.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())
