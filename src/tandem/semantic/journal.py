"""The semantic cache on disk: a folder of files to which records are appended.

What is guaranteed:

- The end of the process, ``kill -9`` included, loses nothing that was acknowledged: each record is with the operating
  system before the call returns.
- The loss of power loses at most what was stored since the last ``sync``, which the server calls once a second.
  Deletions are settled before they are acknowledged.
- A file that was damaged is set aside together with all others, with one line in the log, and the cache starts empty.
- A disk that is full or fails costs persistence, not service: what it refuses is not kept. If it refuses a record that
  takes something back (a deletion, a replacement, an alarm), the files are removed: after a restart an empty cache is
  right, and one that remembers what was deleted is not.

Compaction leaves out what is gone. It copies in a thread of the caller's choice, while new records go to a new file;
the copy appears by rename, so that a crash at any instant leaves either what was or what is to be.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Lock

from tandem.errors import ConfigError
from tandem.semantic.compaction import copy
from tandem.semantic.records import Record, encode
from tandem.semantic.segments import PLAIN, Damaged, files_of, frame, records, sound_files

log = logging.getLogger("tandem.semantic")

# A journal is copied when it has so many bytes, and twice what is alive in it; or so many files.
_COMPACT_BYTES = 64 << 20
_COMPACT_FILES = 16


class Journal:
    """One folder, locked while open. Appending is for one thread; ``sync`` and a compaction may run in others."""

    def __init__(self, folder: Path, max_labels: int = 10_000) -> None:
        """``max_labels`` of each promise are kept by a compaction.

        Raises ConfigError when another process holds the folder, or it can not be made or written.
        """
        self._folder = folder
        self._max_labels = max_labels
        self._lock = Lock()
        self._fd = -1
        self._copying = self._abandoned = False
        self._copied = Event()
        self._copied.set()
        self.errors = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._folder_lock = _lock_folder(folder)
            try:
                self._old = sound_files(folder)
                self._number = max((int(path.stem) for path in self._old), default=0)
                self._begin()
            except BaseException:
                os.close(self._folder_lock)
                raise
        except OSError as error:
            raise ConfigError(f"the semantic cache can not be kept in {folder}: {error}") from error

    def records(self) -> Iterator[Record]:
        """What was there when it was opened, in order."""
        for path in self._old:
            yield from records(path)

    def append(self, record: Record, takes_back: bool) -> None:
        data = frame(encode(record))
        try:
            self._write(data)
        except OSError as error:
            self._failed(error)
            if takes_back:
                self._abandon()

    def settle(self) -> None:
        self.sync()

    def sync(self) -> None:
        """Hand what was appended to the disk. For any thread; appending goes on meanwhile."""
        with self._lock:
            if self._fd < 0:
                return
            descriptor = os.dup(self._fd)
        try:
            os.fsync(descriptor)
        except OSError as error:
            self._failed(error)
        finally:
            os.close(descriptor)

    def disk_bytes(self) -> int:
        """Of all files."""
        found = 0
        for path in files_of(self._folder):
            with contextlib.suppress(OSError):  # A compaction removed it.
                found += path.stat().st_size
        return found

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        if self._fd < 0:
            return "not persistent: the disk refused the journal"
        return "ok" if not self.errors else f"the disk refused {self.errors} writes"

    def wants_compaction(self, live_bytes: int) -> bool:
        """Whether copying what is alive, about ``live_bytes``, is worth it."""
        if self._copying or self._fd < 0:
            return False
        return len(files_of(self._folder)) > _COMPACT_FILES or self.disk_bytes() > max(_COMPACT_BYTES, 2 * live_bytes)

    def compaction(self, live: set[int]) -> Callable[[], None]:
        """The work of leaving out all entries but ``live``, to be called once, in any thread. Records appended after
        this are not touched by it. Raises RuntimeError while another is under way."""
        if self._copying:
            raise RuntimeError("a compaction is under way")
        sources = files_of(self._folder)
        try:
            with self._lock:
                self._begin()
        except OSError as error:
            self._failed(error)
            return lambda: None
        self._copying = True
        self._copied.clear()

        def run() -> None:
            try:
                copy(sources, live, self._max_labels)
                _sync_folder(self._folder)
                for path in sources[:-1]:
                    path.unlink(missing_ok=True)
                with self._lock:
                    if self._abandoned:  # Meanwhile: then nothing may stay.
                        sources[-1].unlink(missing_ok=True)
            except (OSError, Damaged) as error:
                self._failed(error)
            finally:
                self._copying = False
                self._copied.set()

        return run

    def close(self) -> None:
        """Settle, and let go of the folder. Idempotent."""
        self.sync()
        # Who opens the folder next must not see files come and go.
        self._copied.wait()
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            if self._folder_lock >= 0:
                os.close(self._folder_lock)
                self._folder_lock = -1

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _begin(self) -> None:
        """A new file to append to."""
        path = self._folder / f"{self._number + 1:08d}.records"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, PLAIN)
            _sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size, self._number = descriptor, len(PLAIN), self._number + 1

    def _abandon(self) -> None:
        """Remove all files, and write no more: what is on the disk is no longer true and can not be mended."""
        log.error("the semantic cache in %s is no longer kept on disk, as a change could not be written", self._folder)
        with self._lock:
            os.close(self._fd)
            self._fd, self._abandoned = -1, True
        for path in files_of(self._folder):
            with contextlib.suppress(OSError):  # The folder is gone, or the disk is: then so is the file.
                path.unlink()

    def _failed(self, error: OSError | Damaged) -> None:
        """One line for the first of them: a full disk refuses every write."""
        if not self.errors:
            log.error("the semantic cache in %s: %s; it goes on in memory", self._folder, error)
        self.errors += 1


def _lock_folder(folder: Path) -> int:
    """A descriptor that holds the folder until it is closed, or the process ends. Raises ConfigError, OSError."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"the semantic cache in {folder} is in use by another process; give each its own") from None
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
