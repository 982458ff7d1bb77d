"""The semantic cache on disk: a folder of files to which records are appended.

What is guaranteed:

- The end of the process, ``kill -9`` included, loses nothing that was acknowledged: each record is with the operating
  system before the call returns.
- The loss of power loses at most what was stored since the last ``sync``, which the server calls once a second.
  Deletions are settled before they are acknowledged; one that the disk does not confirm is not.
- A file that was damaged is set aside together with all others, with one line in the log, and the cache starts empty.
- A disk that is full or fails costs persistence, not service: what it refuses is not kept. If it refuses a record that
  takes something back (a deletion, a replacement, an alarm), the files are removed: after a restart an empty cache is
  right, and one that remembers what was deleted is not.

- The kernel tells of a write that failed once, and then calls it clean. So after a failure no success is believed:
  what was in doubt is copied, which checks every byte, or given up.

Compaction leaves out what is gone. It copies in a thread of the caller's choice, while new records go to a new file;
the copy appears by rename, so that a crash at any instant leaves either what was or what is to be.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Lock

from tandem.errors import ConfigError, ServiceError
from tandem.semantic import segments
from tandem.semantic.compaction import copy
from tandem.semantic.records import Record, encode
from tandem.semantic.segments import Damaged, files_of, frame, records
from tandem.semantic.tail import Tail

log = logging.getLogger("tandem.semantic")

# A journal is copied when it has so many bytes, and twice what is alive in it; or so many files.
_COMPACT_BYTES = 64 << 20
_COMPACT_FILES = 16
# After compactions that failed: so often, once a second, it is not tried.
_LONGEST_PAUSE = 600


class Journal:
    """One folder, locked while open. ``append`` and ``compaction`` are for one thread and wait for no disk; ``sync``,
    ``settle``, ``prepare_compaction`` and what ``compaction`` gives do, and may run in others."""

    def __init__(self, folder: Path, max_labels: int = 10_000, flush: Callable[[int], None] = os.fsync) -> None:
        """``max_labels`` of each promise are kept by a compaction. ``flush``: brings what a descriptor stands for to
        the disk, or raises OSError.

        Raises ConfigError when another process holds the folder, or it can not be made or written.
        """
        self._folder = folder
        self._max_labels = max_labels
        self._flush = flush
        # Held while the disk is at work, so that who finds it idle finds what it has refused.
        self._syncing = Lock()
        # For what two threads may both decide.
        self._lock = Lock()
        self._in_doubt = self._copying = self._abandoned = self._remains = False
        self._copied = Event()
        self._copied.set()
        # How often a compaction is not tried after one that failed, and how often it still is not.
        self._pause = self._pausing = 0
        self.errors = 0
        self._why = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._folder_lock = segments.lock_folder(folder)
            try:
                self._old = segments.sound_files(folder)
                number = max((int(path.stem) for path in self._old), default=0) + 1
                self._tail = Tail(folder, number, flush)
                self._tail.bring()
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
            self._tail.write(data)
        except OSError as error:
            self._failed(error)
            try:
                self._tail.cut_back()
            except OSError as worse:
                self._failed(worse)
                takes_back = True
            if takes_back:
                self._abandon()

    def settle(self) -> None:
        """When this returns, the loss of power does not undo what was appended before.

        Raises ServiceError where the disk does not confirm it. The files are then removed, as an empty cache is right
        and one that remembers what was deleted is not, and from then on this returns once their removal is confirmed.
        """
        with self._syncing:
            if not self._abandoned:
                self._bring()
                if self._in_doubt:
                    self._abandon()
            if self._remains:
                self._remove()
            if self._remains:
                raise ServiceError(
                    "it is done in memory, but the disk did not confirm it, and after the loss of power it might be "
                    f"undone: {self._why}; ask again",
                    retry_after_s=1.0,
                )

    def sync(self) -> None:
        """Hand what was appended to the disk. What fails is counted, and shown by ``state``."""
        with self._syncing:
            if self._remains:
                self._remove()
            else:
                self._bring()

    def disk_bytes(self) -> int:
        """Of all files."""
        return segments.bytes_of(self._folder)

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        if self._abandoned:
            left = ", and files that are no longer true may be left" if self._remains else ""
            return f"not persistent: the disk refused the journal{left}: {self._why}"
        return "ok" if not self.errors else f"the disk refused {self.errors} writes: {self._why}"

    def prepare_compaction(self, live_bytes: int) -> bool:
        """Whether copying what is alive, about ``live_bytes``, is worth it. If so, there is now a file for what is
        appended meanwhile."""
        if self._copying or not self._tail.is_open:
            return False
        if self._pausing:
            self._pausing -= 1
            return False
        is_large = self.disk_bytes() > max(_COMPACT_BYTES, 2 * live_bytes)
        if not (self._in_doubt or is_large or len(files_of(self._folder)) > _COMPACT_FILES):
            return False
        return self._prepare()

    def compaction(self, live: set[int]) -> Callable[[], None]:
        """The work of leaving out all entries but ``live``, to be called once. Records appended after this are not
        touched by it. Where it was not prepared this waits for the disk. Raises RuntimeError while another is under
        way."""
        if self._copying:
            raise RuntimeError("a compaction is under way")
        current = self._tail.switch() if self._prepare() else None
        if current is None:
            return lambda: None
        self._copying = True
        self._copied.clear()
        errors = self.errors

        def run() -> None:
            try:
                sources = [path for path in files_of(self._folder) if path < current]
                if not sources:  # It was abandoned meanwhile.
                    return
                copy(sources, live, self._max_labels, self._flush)
                segments.sync_folder(self._folder, self._flush)
                for path in sources[:-1]:
                    path.unlink(missing_ok=True)
                with self._lock:
                    # The copy was checked and is on the disk; what was in doubt before is no more.
                    self._in_doubt = self._in_doubt and self.errors != errors
                self._pause = 0
            except (OSError, Damaged) as error:
                if not self._abandoned:  # Or it failed because its files were removed.
                    self._failed(error, is_copy=True)
            finally:
                self._copying = False
                self._copied.set()

        return run

    def close(self) -> None:
        """Settle, and let go of the folder. Idempotent."""
        self.sync()
        # Who opens the folder next must not see files come and go.
        self._copied.wait()
        self._tail.close()
        with self._lock:
            if self._folder_lock >= 0:
                os.close(self._folder_lock)
                self._folder_lock = -1

    def _bring(self) -> None:
        try:
            self._tail.bring()
        except OSError as error:
            self._in_doubt = True
            self._failed(error)

    def _prepare(self) -> bool:
        try:
            self._tail.prepare()
        except OSError as error:
            self._failed(error, is_copy=True)
            return False
        return True

    def _abandon(self) -> None:
        """Write no more, and remove all files: what is on the disk is no longer true and can not be mended."""
        with self._lock:
            if self._abandoned:
                return
            self._abandoned = self._remains = True
        self._tail.close()
        log.error("the semantic cache in %s is no longer kept on disk, as a change could not be written", self._folder)
        with contextlib.suppress(OSError):  # ``_remove`` tries again.
            segments.remove_files(self._folder)

    def _remove(self) -> None:
        """Remove the files of a journal that was abandoned, and bring that to the disk."""
        try:
            segments.remove_files(self._folder)
            segments.sync_folder(self._folder, self._flush)
            self._remains = False
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError | Damaged, is_copy: bool = False) -> None:
        """One line for the first of them: a full disk refuses every write."""
        if is_copy:
            self._pausing = self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE)
        if not self.errors:
            log.error("the semantic cache in %s: %s; it goes on in memory", self._folder, error)
        self.errors += 1
        # Without the path: it is shown to whoever has a key.
        self._why = (isinstance(error, OSError) and error.strerror) or "a file is damaged"
