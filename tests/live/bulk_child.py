"""The process that ``test_bulk_kill`` kills: one bulk job with a model that is a hash, told when to die."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from tandem.bulk.options import JobOptions
from tandem.types import Rows
from tests.unit.bulk.jobs import hash_rows, job, run, with_options

# What changes something on the disk, by the names of the functions that do it.
DISK_CALLS = frozenset({"open", "pwrite", "write", "fsync", "ftruncate", "replace", "unlink", "rmdir", "mkdir"})


def options(source: str, output: str) -> JobOptions:
    """Overwriting, because a job that is killed after its end and started again finds its own output."""
    return with_options(job(Path(source), Path(output)), overwrite=True)


def embed_slowly(source: str, output: str) -> None:
    """A job that takes long enough to be killed in, by work and not by waiting."""

    def embed(texts: list[str]) -> Rows:
        for _ in range(100):
            rows = hash_rows(texts)
        return rows

    run(options(source, output), embed)


def embed_until(source: str, output: str, calls: int) -> None:
    """Die just before the ``calls``-th call that changes something on the disk. Exit code 0 means that it lived."""
    left = [calls]
    lock = threading.Lock()

    def count(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in DISK_CALLS:
            with lock:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)
    run(options(source, output))
    sys.setprofile(None)
    threading.setprofile(None)
