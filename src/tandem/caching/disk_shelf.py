"""One open disk cache: its two threads, its opening in the background, and what happens when the file breaks.

All stores of a process with the same folder share one, as LMDB must not be opened twice in a process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import TypeVar

from tandem.caching.disk_files import DiskFiles
from tandem.caching.disk_rows import DiskRows, DiskSize
from tandem.caching.disk_thread import DiskThread
from tandem.errors import ConfigError

log = logging.getLogger("tandem.caching")

T = TypeVar("T")

# Each begins with a check. A disk that breaks file after file is left alone.
_REOPENINGS = 3


class Shelf:
    """Opens at once, in a thread. ``take`` and ``give_back`` make and end it."""

    def __init__(self, folder: Path, size: DiskSize) -> None:
        """Raises ConfigError without the package lmdb."""
        try:
            import lmdb
            import lmdb.verify
        except ImportError as error:
            raise ConfigError(
                f"a disk cache needs the package lmdb, 3.0 or later (pip install lmdb): {error}"
            ) from error
        self.faults: tuple[type[Exception], ...] = (lmdb.Error, OSError, asyncio.TimeoutError)
        self.breaks: tuple[type[Exception], ...] = (
            lmdb.CorruptedError,
            lmdb.PageNotFoundError,
            lmdb.PanicError,
            lmdb.InvalidError,
            lmdb.VersionMismatchError,
            lmdb.MapResizedError,
        )
        """After these of the faults the file is of no use any more; the others concern one call."""
        self.folder = folder
        self.size = size
        self.holders = 1
        self.trouble = "is being opened"
        """Why it can not be used at present, "" when it can."""
        self.facts = {"entries": 0.0, "bytes": 0.0, "evicted": 0.0}
        self._files = DiskFiles(folder, size)
        self._rows: DiskRows | None = None
        self._reopenings = 0
        self._reader = DiskThread("tandem-disk-read", self.faults)
        self._writer = DiskThread("tandem-disk-write", self.faults)
        self.opened: Future[None] = self._writer.submit(self._open)

    def read(self, call: Callable[[DiskRows], T]) -> asyncio.Future[T]:
        """``call`` in the thread that reads; the future may fail with ``faults``.

        Not in the event loop, though a row whose pages are in memory takes 5 microseconds there and 40 here: nobody
        can tell beforehand whether they are, and a page fault can not be given up. A disk that hangs would hang all
        requests, those that memory answers too, and the deadline that is to see it.
        """
        return self._ask(self._reader, lambda: call(self._there()))

    def write(self, call: Callable[[DiskRows], T]) -> asyncio.Future[T]:
        """``call`` in the thread that writes; the future may fail with ``faults``."""
        return self._ask(self._writer, lambda: self._written(call))

    async def close(self) -> None:
        self._files.stop()
        left = self._writer.submit(self._leave)
        self._writer.close()
        self._reader.close()
        await asyncio.wrap_future(left)

    def _ask(self, thread: DiskThread, call: Callable[[], T]) -> asyncio.Future[T]:
        future = thread.ask(call)
        future.add_done_callback(self._look)
        return future

    def _look(self, future: asyncio.Future[T]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, self.breaks):
            self._reopen(error)

    def _there(self) -> DiskRows:
        rows = self._rows
        if rows is None:
            raise OSError(self.trouble or "it is not open")
        return rows

    def _written(self, call: Callable[[DiskRows], T]) -> T:
        rows = self._there()
        result = call(rows)
        self.facts = {**rows.facts(), "evicted": float(rows.evicted)}
        return result

    def _open(self) -> None:
        try:
            self._rows = self._files.open()
            self.facts = {**self._rows.facts(), "evicted": 0.0}
            self.trouble = ""
        except self.faults as error:
            self.trouble = f"can not be used: {error}"
            if not isinstance(error, InterruptedError):
                log.warning("the disk cache in %s can not be used: %s", self.folder, error)

    def _reopen(self, error: BaseException) -> None:
        """From the event loop, once for each failure: the file is checked, and begins anew if it is damaged."""
        if self.trouble:
            return
        self._reopenings += 1
        again = self._reopenings <= _REOPENINGS
        self.trouble = "is being opened anew" if again else f"breaks again and again: {error}"
        log.warning("the disk cache in %s %s: %s", self.folder, self.trouble, error)
        self._writer.submit(self._leave)
        if again:
            self.opened = self._writer.submit(self._open)

    def _leave(self) -> None:
        rows, self._rows = self._rows, None
        if rows is not None and self.trouble:
            rows.close()
            rows = None
        self._files.leave(rows)


_shelves: dict[Path, Shelf] = {}
_lock = Lock()


def take(folder: Path, size: DiskSize) -> Shelf:
    """The shelf of a folder. Raises ConfigError where it is open with another limit, and without the package lmdb."""
    where = folder.absolute()
    with _lock:
        shelf = _shelves.get(where)
        if shelf is None:
            shelf = _shelves[where] = Shelf(where, size)
            return shelf
        if shelf.size.max_bytes != size.max_bytes:
            raise ConfigError(f"the disk cache in {where} is open with another limit: {shelf.size.max_bytes} bytes")
        shelf.holders += 1
        return shelf


async def give_back(shelf: Shelf) -> None:
    """The last who does closes it."""
    with _lock:
        shelf.holders -= 1
        if shelf.holders:
            return
        del _shelves[shelf.folder]
    await shelf.close()
