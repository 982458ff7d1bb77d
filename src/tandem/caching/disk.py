"""The second level that outlives a restart: rows on a disk, shared by the servers of one machine.

Each row lies with the time of the calendar at which it was written, which its checksum covers. A calendar can be set:
a row from the future is as good as expired, so a clock that jumped back costs misses, and one that jumped forward
too. No row lives longer than its time to live and the jump; none is ever wrong, as the key says all that a row depends
on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path

import msgspec

from tandem.caching.base import Entry, Key
from tandem.caching.breaker import BreakerOptions
from tandem.caching.disk_rows import DiskRows, DiskSize
from tandem.caching.disk_shelf import give_back, take
from tandem.caching.rack import Found, Kept, LevelOptions
from tandem.caching.record import Records
from tandem.caching.second_level import SecondLevel
from tandem.clock import Clock
from tandem.errors import ConfigError

_LEAST_BYTES = 4 << 20
_STAMP_BYTES = 8


class DiskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``path``: a folder of its own. ``max_bytes``: how large its file may grow; it does not shrink again. All models
    share it. ``ttl_s``: how long a row is served, None for ever. ``timeout_s``: the deadline of a read; a page that is
    not in memory may be a disk's seek away. ``backlog_rows``: how many rows may wait to be written."""

    path: Path
    max_bytes: int = 1 << 30
    ttl_s: float | None = None
    timeout_s: float = 0.25
    backlog_rows: int = 8192
    breaker: BreakerOptions = BreakerOptions()


def disk_store(options: DiskOptions, records: Records, clock: Clock) -> SecondLevel:
    """An ``EntryStore`` on a disk. Opens in the background; until then, all are misses.

    Raises ConfigError for options that make no sense, and without the package lmdb. A folder that can not be used is no
    error: ``state`` says so.
    """
    rack = DiskRack(options, records, clock)
    level = LevelOptions(
        timeout_s=options.timeout_s,
        backlog_rows=options.backlog_rows,
        batch_rows=rack.size.batch_rows,
        # One thread reads.
        calls=1,
        breaker=options.breaker,
    )
    return SecondLevel("disk", rack, level, clock)


class DiskRack:
    """Rows of one model on a shelf."""

    subject = "the disk cache"

    def __init__(self, options: DiskOptions, records: Records, clock: Clock) -> None:
        if options.max_bytes < _LEAST_BYTES:
            raise ConfigError(f"a disk cache needs {_LEAST_BYTES} bytes at least, not {options.max_bytes}")
        if options.ttl_s is not None and options.ttl_s <= 0:
            raise ConfigError("the disk cache can not keep rows for no time at all")
        self.size = DiskSize(options.max_bytes, _STAMP_BYTES + records.length)
        if self.size.batch_rows < 1:
            raise ConfigError(f"a disk cache of {options.max_bytes} bytes is too small for rows of {records.length}")
        self.shelf = take(options.path, self.size)
        self.faults = self.shelf.faults
        self._ttl_s = options.ttl_s
        self._records = records
        self._clock = clock

    def read(self, keys: Sequence[Key]) -> Awaitable[Found]:
        return self.shelf.read(lambda rows: self._read(rows, keys))

    async def write(self, keys: Sequence[Key], entries: Sequence[Entry]) -> Kept:
        return await self.shelf.write(lambda rows: self._write(rows, keys, entries))

    async def clear(self, cursor: int) -> tuple[int, int]:
        gone = await self.shelf.write(lambda rows: rows.delete(self._records.namespace))
        return int(gone > 0), gone

    async def ready(self) -> None:
        await asyncio.wrap_future(self.shelf.opened)

    async def close(self) -> None:
        await give_back(self.shelf)

    def trouble(self) -> str:
        return self.shelf.trouble

    def words(self, error: Exception) -> str:
        return f"fails: {error}"

    def statistics(self) -> dict[str, float]:
        return dict(self.shelf.facts)

    def _read(self, rows: DiskRows, keys: Sequence[Key]) -> Found:
        stored = rows.get([self._records.namespace + key for key in keys])
        now_ms = round(1000 * self._clock.wall())
        fresh = [value if value is not None and self._is_fresh(value, now_ms) else None for value in stored]
        stale = sum(value is not None for value in stored) - sum(value is not None for value in fresh)
        # The stamp is sealed with the key: with a bit of it changed, a row would live too long.
        sealed = [key + (value or b"")[:_STAMP_BYTES] for key, value in zip(keys, fresh, strict=True)]
        bodies = [None if value is None else value[_STAMP_BYTES:] for value in fresh]
        entries, faults = self._records.decode(sealed, bodies)
        return Found(entries, [*faults, *["stale"] * stale])

    def _is_fresh(self, value: bytes, now_ms: int) -> bool:
        if self._ttl_s is None:
            return True
        age_ms = now_ms - int.from_bytes(value[:_STAMP_BYTES], "little")
        return 0 <= age_ms < 1000 * self._ttl_s

    def _write(self, there: DiskRows, keys: Sequence[Key], entries: Sequence[Entry]) -> Kept:
        stamp = max(0, round(1000 * self._clock.wall())).to_bytes(_STAMP_BYTES, "little")
        encoded = self._records.encode([key + stamp for key in keys], entries)
        name = self._records.namespace
        rows = [(name + key, stamp + value) for key, value in zip(keys, encoded, strict=True) if value is not None]
        try:
            there.put(rows)
        except self.shelf.breaks:
            raise
        except self.faults as error:
            # A full disk, a folder turned read-only: what was read before can be read still.
            return Kept(written=0, unfit=len(keys) - len(rows), refused=[self.words(error)] * len(rows))
        return Kept(written=len(rows), unfit=len(keys) - len(rows))
