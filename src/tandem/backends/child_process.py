"""Starting a Python of our own as a child process, and saying how it ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def command(module: str) -> tuple[str, ...]:
    """Runs a module of ours. The folder that the user happens to stand in is no place for modules (-P)."""
    return (sys.executable, "-P", "-m", module)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, and ``more``. The package is where it is for us."""
    found = {**os.environ, **(more or {})}
    places = [str(Path(__file__).parents[2]), *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(places)}


def how_it_ended(returncode: int) -> str:
    """A child's return code in words, to be put after its name."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"


def leave_no_core() -> None:
    """A crash of this process is one of its answers; its memory image in the user's folder is not."""
    with suppress(ImportError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
