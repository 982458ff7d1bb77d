"""The folder of a disk cache: who is in it, whether its file is sound, and what becomes of one that is not.

LMDB trusts its file: a page of rubbish can end the process that reads it. So nobody opens a file that may have been
changed by others than LMDB. Who is the first in the folder has its structure checked, page by page, by the verifier
that comes with the package: it reads the file as bytes and never maps it. It is slow, so a child process does it while
the server serves, and a file that is just as it was when the last server left it is not checked again.

::

    folder/guard      a lock: shared by all that are in, exclusive for who checks
    folder/left       the file's inode, length and time of change when the last one left
    folder/rows/      LMDB's own data.mdb and lock.mdb
    folder/damaged/   rows that were found damaged, until they are deleted
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event

from tandem.caching.disk_rows import DiskRows, DiskSize, looks

log = logging.getLogger("tandem.caching")

_CHECK = """
import os, sys
os.nice(19)
from lmdb.verify import VerifyError, verify
try:
    problems = verify(sys.argv[1])
except VerifyError as error:
    problems = [str(error)]
print(*problems[:1])
sys.exit(3 if problems else 0)
"""
_BAD = 3
_POLL_S = 0.1


class DiskFiles:
    """For one thread, but for ``stop``."""

    def __init__(self, folder: Path, size: DiskSize) -> None:
        self._folder = folder
        self._size = size
        self._guard: int | None = None
        self._stopped = Event()

    def open(self) -> DiskRows:
        """The rows, sound or new. Raises OSError, lmdb.Error, and InterruptedError when it was stopped."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._guard is None:
            self._guard = os.open(self._folder / "guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        alone = self._lock()
        try:
            if alone:
                self._ensure_sound()
            rows = DiskRows(self._folder / "rows", self._size)
            if not rows.whole():
                rows.close()
                raise OSError(f"{self._folder} was cut off while others used it")
        except BaseException:
            self._unlock()
            raise
        if alone:
            fcntl.flock(self._guard, fcntl.LOCK_SH)
        return rows

    def stop(self) -> None:
        """From another thread: end a check that is under way."""
        self._stopped.set()

    def leave(self, rows: DiskRows | None) -> None:
        """Close ``rows``, None for those that are not to be trusted. Who is the last notes how the file was left, if
        nobody else may have written to it: what others than LMDB have done to it, a check must find."""
        if self._guard is None:
            return
        with suppress(BlockingIOError):
            if rows is not None:
                left = rows.looks()
                rows.close()
                fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (self._folder / "left").write_text(left)
        self._unlock()

    def _lock(self) -> bool:
        """Whether nobody else is in. Waits while another checks."""
        assert self._guard is not None
        while not self._stopped.is_set():
            for mode in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                with suppress(BlockingIOError):
                    fcntl.flock(self._guard, mode | fcntl.LOCK_NB)
                    return mode == fcntl.LOCK_EX
            self._stopped.wait(_POLL_S)
        raise InterruptedError("stopped")

    def _unlock(self) -> None:
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    def _ensure_sound(self) -> None:
        aside = self._folder / "damaged"
        # From a process that ended before it was done with that.
        shutil.rmtree(aside, ignore_errors=True)
        left, now = self._folder / "left", looks(self._folder / "rows")
        known = left.read_text() if left.exists() else ""
        # It says nothing any more as soon as somebody is in.
        left.unlink(missing_ok=True)
        if not now or known == now:
            return
        problem = self._check()
        if problem:
            log.warning("the disk cache in %s was damaged and begins anew: %s", self._folder, problem)
            # Nothing in a cache is worth its bytes twice. Who still has it open keeps what he sees.
            (self._folder / "rows").rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _check(self) -> str:
        """What is wrong with the file, "" if nothing is. Raises InterruptedError, OSError."""
        command = [sys.executable, "-c", _CHECK, str(self._folder / "rows")]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            while True:
                try:
                    said, complaint = child.communicate(timeout=_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if self._stopped.is_set():
                        raise InterruptedError("stopped") from None
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
        if child.returncode not in (0, _BAD):
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            return f"the check itself failed with {child.returncode}: {last}"
        return said.decode(errors="replace").strip()
