"""The end of a journal: the file that records are appended to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from tandem.semantic.segments import PLAIN, file_of, new_file, sync_folder


class Tail:
    """Files of a folder, the newest of which is written. ``write``, ``cut_back`` and ``switch`` are for one thread and
    wait for no disk; the others do, and may run in any."""

    def __init__(self, folder: Path, number: int, flush: Callable[[int], None]) -> None:
        """Begins file ``number``. ``flush``: brings what a descriptor stands for to the disk. Raises OSError."""
        self._folder = folder
        self._number = number - 1
        self._flush = flush
        # Never held while the disk is at work: who appends would wait.
        self._lock = Lock()
        self._next_fd = -1
        # Files that are written no more, and may not be on the disk yet.
        self._earlier: list[int] = []
        self._fd, self._size = self._create(), len(PLAIN)
        self._is_listed = False

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def write(self, data: bytes) -> None:
        """Nothing happens once it is closed. Raises OSError."""
        with self._lock:  # Or the descriptor might be closed by then, and be another file's.
            if self._fd < 0:
                return
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            self._size += len(data)

    def cut_back(self) -> None:
        """Take back what was written of a record that was refused: what came after it could not be read. Raises
        OSError."""
        with self._lock:
            if self._fd >= 0:
                os.ftruncate(self._fd, self._size)

    def bring(self) -> None:
        """Bring to the disk what was written so far, and that its files are there. Raises OSError."""
        with self._lock:
            if self._fd < 0:
                return
            descriptors, self._earlier = [*self._earlier, os.dup(self._fd)], []
            is_listed, self._is_listed = self._is_listed, True
        try:
            for descriptor in descriptors:
                self._flush(descriptor)
            if not is_listed:
                sync_folder(self._folder, self._flush)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def prepare(self) -> None:
        """See to it that there is a next file, so that ``switch`` need not make one. Raises OSError."""
        if self._next_fd < 0:
            descriptor = self._create()
            with self._lock:
                if self._fd >= 0:
                    self._next_fd = descriptor
                    return
            os.close(descriptor)

    def switch(self) -> Path | None:
        """Write to the next file from now on; None once it is closed."""
        with self._lock:
            if self._fd < 0:
                return None
            self._earlier.append(self._fd)
            self._fd, self._next_fd, self._size = self._next_fd, -1, len(PLAIN)
            self._is_listed = False
        return file_of(self._folder, self._number)

    def close(self) -> None:
        """Write no more. Idempotent."""
        with self._lock:
            for descriptor in (self._fd, self._next_fd, *self._earlier):
                if descriptor >= 0:
                    os.close(descriptor)
            self._fd = self._next_fd = -1
            self._earlier = []

    def _create(self) -> int:
        """A new file. It is there for good once the folder was brought to the disk. Raises OSError."""
        descriptor = new_file(file_of(self._folder, self._number + 1))
        self._number += 1
        return descriptor
