"""Rows in LMDB: by name, and in the order in which they were written, so that the oldest go first.

Oldest first, not least recently used: that would turn each read into a write. What is in use lies in the first level
above, and a row that goes here is computed once more and is new again.

LMDB, as it lets several processes share one file without a server, reads without locks, and lives through a ``kill -9``
at any moment by its design: pages are never overwritten while anyone may read them, and a commit is one write of a
meta page after all others. It is opened without WRITEMAP, so that a full disk is an error of a write and no SIGBUS,
and with ``metasync`` off: a power cut may take the last commits, and never the file's integrity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from lmdb import Transaction, _Database

_DATA = "data.mdb"
_NUMBER_BYTES = 8
# A commit copies each page that it changes: for a row a leaf for what comes, two for what goes, and its share of those
# above and of the order.
_COPIES = 5
_PAGE_BYTES = 4096
# Pages that a commit sets free serve the one after the next.
_COMMITS = 3
_BATCH_ROWS = 256
# When LMDB finds no free page all the same, so many batches go, one by one.
_SQUEEZES = 8
_CLEAR_ROWS = 256
# Processes and threads of theirs that read at a time.
_READERS = 126


class DiskSize(msgspec.Struct, frozen=True):
    """A file of up to ``max_bytes`` for rows of ``row_bytes``, and what follows from that."""

    max_bytes: int
    row_bytes: int

    @property
    def batch_rows(self) -> int:
        """How many rows a commit may have: as many as a quarter of the file has room for, thrice; 0 where it has none.
        No more than a few hundred, as from there on a commit costs by the row."""
        return min(_BATCH_ROWS, self.max_bytes // 4 // (_COMMITS * self._commit_bytes))

    @property
    def full_bytes(self) -> int:
        """How much of the file may be used, so that commits have room."""
        return self.max_bytes - _COMMITS * self.batch_rows * self._commit_bytes

    @property
    def _commit_bytes(self) -> int:
        return _COPIES * _PAGE_BYTES + 2 * self.row_bytes


class DiskRows:
    """One LMDB environment. ``get`` and ``facts`` from any thread, all else from one."""

    def __init__(self, folder: Path, size: DiskSize) -> None:
        """Opens or makes it. Raises lmdb.Error, OSError."""
        import lmdb

        self.folder = folder
        self.evicted = 0
        self._size = size
        self._full_error = lmdb.MapFullError
        self._reading = Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._env = lmdb.open(
            str(folder), map_size=size.max_bytes, max_dbs=2, metasync=False, readahead=False, max_readers=_READERS
        )
        try:
            # A process that was killed while it read holds its pages for ever, unless somebody looks.
            self._env.reader_check()
            self._rows = self._env.open_db(b"rows")
            self._order = self._env.open_db(b"order")
            self._page_bytes = self._env.stat()["psize"]
        except BaseException:
            self._env.close()
            raise
        self._looked = looks(folder)
        self._others = False

    def get(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The value of each name. Raises lmdb.Error."""
        # Nobody may close it meanwhile: LMDB does not look.
        with self._reading, self._env.begin(db=self._rows) as txn:
            values = [txn.get(name) for name in names]
        return [None if value is None else value[_NUMBER_BYTES:] for value in values]

    def put(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep all of them, or none; the oldest make room. Raises lmdb.Error: MapFullError where no room can be had."""
        try:
            self._put(rows)
        except self._full_error:
            # Free pages may lie too scattered, or a reader holds them; one that was killed reads for ever.
            self._env.reader_check()
            self._squeeze(rows)

    def delete(self, prefix: bytes) -> int:
        """Delete some hundred rows whose names begin so; how many there were. Raises lmdb.Error."""
        with self._writing() as txn:
            names: list[tuple[bytes, bytes]] = []
            with txn.cursor(self._rows) as cursor:
                there = cursor.set_range(prefix)
                while there and len(names) < _CLEAR_ROWS and cursor.key().startswith(prefix):
                    names.append((cursor.key(), cursor.value()[:_NUMBER_BYTES]))
                    there = cursor.next()
            for name, number in names:
                txn.delete(name, db=self._rows)
                txn.delete(number, db=self._order)
        return len(names)

    def facts(self) -> dict[str, float]:
        """``entries`` of all models, and the ``bytes`` of the pages that hold them. Raises lmdb.Error."""
        with self._reading, self._env.begin() as txn:
            return {"entries": float(txn.stat(self._rows)["entries"]), "bytes": float(self._used_bytes(txn))}

    def looks(self) -> str:
        """How the file looks, if nobody else has written to it since it was opened; "" otherwise."""
        return "" if self._others or looks(self.folder) != self._looked else self._looked

    def whole(self) -> bool:
        """Whether the file is as long as its last page says: to touch what was cut off would be a SIGBUS."""
        pages = self._env.info()["last_pgno"] + 1
        return (self.folder / _DATA).stat().st_size >= pages * self._page_bytes

    def close(self) -> None:
        with self._reading:
            self._env.close()

    @contextmanager
    def _writing(self) -> Iterator[Transaction[bytes]]:
        self._others |= looks(self.folder) != self._looked
        with self._env.begin(write=True) as txn:
            yield txn
        self._looked = looks(self.folder)

    def _put(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        with self._writing() as txn:
            with txn.cursor(self._order) as cursor:
                last = int.from_bytes(cursor.key(), "big") if cursor.last() else 0
            self._make_room(txn, len(rows))
            for number, (name, value) in enumerate(rows, last + 1):
                mark = number.to_bytes(_NUMBER_BYTES, "big")
                before = txn.get(name, db=self._rows)
                if before is not None:
                    txn.delete(before[:_NUMBER_BYTES], db=self._order)
                txn.put(mark, name, append=True, db=self._order)
                txn.put(name, mark + value, db=self._rows)

    def _make_room(self, txn: Transaction[bytes], n: int) -> None:
        """Near the limit as many go as come, beyond it twice as many. Not as many as it takes to be below the limit:
        the oldest rows are strewn over all leaves, so it takes many of them to empty one, and each would be copied."""
        used = self._used_bytes(txn)
        if used > self._size.full_bytes - n * 2 * self._size.row_bytes:
            self._evict(txn, 2 * n if used > self._size.full_bytes else n)

    def _squeeze(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        for left in reversed(range(_SQUEEZES)):
            with self._writing() as txn:
                self._evict(txn, len(rows))
            try:
                return self._put(rows)
            except self._full_error:
                if not left:
                    raise

    def _evict(self, txn: Transaction[bytes], n: int) -> int:
        """Delete the oldest ``n`` rows; how many there were."""
        gone = 0
        with txn.cursor(self._order) as cursor:
            while gone < n and cursor.first():
                txn.delete(cursor.value(), db=self._rows)
                cursor.delete()
                gone += 1
        self.evicted += gone
        return gone

    def _used_bytes(self, txn: Transaction[bytes]) -> int:
        return self._page_bytes * sum(_pages(txn, database) for database in (self._rows, self._order))


def looks(folder: Path) -> str:
    """What tells one state of the file in ``folder`` from another; "" when there is none."""
    try:
        stat = (folder / _DATA).stat()
    except FileNotFoundError:
        return ""
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


def _pages(txn: Transaction[bytes], database: _Database) -> int:
    stat = txn.stat(database)
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
