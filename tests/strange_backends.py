"""Backends that misbehave in a process of their own. Each function is a worker's ``build``, imported there."""

from __future__ import annotations

import logging
import os
import resource
import signal
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.errors import BackendFailed
from tandem.types import TokenBatch
from tests.engines import NAN_ID, POISON_ID

CRASH_ID, HANG_ID, MEMORY_ID = 6, 7, 8
OPTIONS = FakeOptions(dims=16, streams=2, poison=POISON_ID, nan=NAN_ID, memory=MEMORY_ID, hang=HANG_ID, crash=CRASH_ID)

log = logging.getLogger("tandem.tests")


def harmful() -> FakeBackend:
    return FakeBackend(OPTIONS)


def slow() -> FakeBackend:
    return FakeBackend(FakeOptions(streams=2, fixed_s=0.005))


def refuses() -> FakeBackend:
    raise BackendFailed("no device of this kind is here")


def has_a_bug() -> FakeBackend:
    raise ZeroDivisionError("3 / 0")


def leaves() -> FakeBackend:
    os._exit(3)


def dies() -> FakeBackend:
    os.kill(os.getpid(), signal.SIGSEGV)
    return harmful()


def never_ready() -> FakeBackend:
    signal.pause()
    return harmful()


def starts_once(marks: Path) -> FakeBackend:
    """Refuses while ``broken`` is there, but for the first time."""
    first, broken = marks / "first", marks / "broken"
    if first.exists() and broken.exists():
        raise BackendFailed("broken")
    first.touch()
    return harmful()


def starts_once_then_hangs(marks: Path) -> FakeBackend:
    if (marks / "first").exists():
        (marks / "again").touch()
        signal.pause()
    (marks / "first").touch()
    return harmful()


def another_each_time(marks: Path) -> FakeBackend:
    dims = 16
    while (marks / str(dims)).exists():
        dims += 1
    (marks / str(dims)).touch()
    return FakeBackend(FakeOptions(dims=dims, crash=CRASH_ID))


def tells_of_itself() -> FakeBackend:
    """Says to the log how its process was set up, and prints what nobody should see."""
    print("printed by the child", flush=True)
    log.info("cores %s", sorted(os.sched_getaffinity(0)))
    log.info("threads %s", os.environ.get("OMP_NUM_THREADS"))
    log.info("core file %s", resource.getrlimit(resource.RLIMIT_CORE)[0])
    log.info("group %s", "its own" if os.getpgid(0) == os.getpid() else "the parent's")
    log.debug("this is not for everybody")
    try:
        raise ValueError("by design")
    except ValueError:
        log.exception("x" * 100_000)
    return harmful()


def with_a_child_of_its_own() -> FakeBackend:
    """The grandchild keeps open whatever its parent had open, and outlives it."""
    if not (grandchild := os.fork()):
        signal.pause()
    log.info("grandchild %d", grandchild)
    return harmful()


class Surrogates(FakeBackend):
    """Fails with the name of a file that is not UTF-8."""

    def __init__(self) -> None:
        super().__init__(OPTIONS)

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        raise RuntimeError("no file caf\udce9")


class Liar(FakeBackend):
    """Sends ``packet`` up the line instead of computing."""

    def __init__(self, packet: bytes) -> None:
        super().__init__(OPTIONS)
        self._packet = packet

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        line = next(fd for fd in range(3, 64) if _is_socket(fd))
        os.write(line, self._packet)
        signal.sigwait([signal.SIGUSR1])
        return super().run(batch)


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
