"""What serving brings onto a machine: the lock's pins, and the installed packages that our own needs pull in."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.source import SourceTree, outside_imports

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


# Where the distribution bears another name than the package.
_RENAMED = {"google": "protobuf"}


def third_party(tree: SourceTree) -> dict[str, str]:
    """Distribution -> one place that imports it, for every import in ``tree`` that is neither ours nor Python's."""
    found: dict[str, str] = {}
    for module in tree:
        for name, line, names in outside_imports(module):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == tree.package:
                continue
            # The arro3 packages share one namespace: arro3.io is of arro3-io.
            inner = name.split(".")[1:2] or list(names[:1])
            found[canonicalize_name("-".join([top, *inner]) if top == "arro3" else _RENAMED.get(top, top))] = (
                module.where(line)
            )
    return found


def forbidden(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if FORBIDDEN.fullmatch(name))


def installed_bytes(distribution: metadata.Distribution) -> int:
    """The sum of the sizes of its files, by its RECORD: what pip wrote, compiled files included."""
    paths = (Path(str(file.locate())) for file in distribution.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())
