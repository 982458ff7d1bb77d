"""Snapshots: what a newcomer loads before it reads the stream, and who has read too late when the stream went on.

A snapshot lies in chunks, each complete in itself, and a manifest that is written last: whoever reads the manifest
finds the chunks. The old chunks stay for a while, for those who are reading them. One instance at a time writes: who
gets the lease. It is not given back but runs out, so that snapshots are never closer together than that. Should two
write at once all the same, as one took longer than its lease, the later manifest wins and both are right.
"""

from __future__ import annotations

import secrets
from collections import Counter
from itertools import chain

import msgspec

from tandem.caching.federated_board import Board
from tandem.caching.federated_replica import Replica, fold
from tandem.caching.federated_wire import INSTANCE_BYTES, Addition, Fault, Manifest, StreamId, Wire
from tandem.errors import ConfigError

_MANIFEST, _LEASE = "manifest", "lease"


class SnapshotOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot is due after ``every`` announcements, or when there is none with half of what is known. It holds the
    ``newest`` so many entries, in chunks of ``chunk_entries``; chunks of more than ``chunk_bytes`` are not read. Each
    ``look_s`` an instance looks whether one is due. ``lease_s``: least time from one to the next. ``expire_s``: how
    long one lives when nobody writes the next; ``grace_s``: how long when somebody did."""

    every: int = 20_000
    newest: int = 100_000
    chunk_entries: int = 256
    chunk_bytes: int = 8 << 20
    look_s: float = 5.0
    lease_s: float = 30.0
    expire_s: float = 7 * 86_400.0
    grace_s: float = 60.0

    def __post_init__(self) -> None:
        if min(msgspec.structs.astuple(self)) <= 0:
            raise ConfigError("all options of snapshots are over 0")


class Snapshots:
    """Reads snapshots, and writes one when it is due and nobody else does."""

    def __init__(self, board: Board, wire: Wire, replica: Replica, options: SnapshotOptions) -> None:
        self.counters: Counter[str] = Counter()
        self._board = board
        self._wire = wire
        self._replica = replica
        self._options = options
        self._known: Manifest | None = None
        self._since = 0

    async def load(self) -> StreamId | None:
        """Fold the newest snapshot in; returns the place in the stream that it covers, None when there is none. A chunk
        that is missing or damaged is left out: its entries are misses. Raises OSError."""
        manifest = await self._manifest()
        # What claims to be larger than any that we would write is not followed.
        if manifest is None or manifest.chunks > self._most_chunks():
            return None
        for number in range(manifest.chunks):
            (data,) = await self._board.get([_chunk(manifest, number)])
            additions = Fault.MALFORMED if data is None else self._wire.read_chunk(data, self._options.chunk_bytes)
            if isinstance(additions, Fault):
                self.counters["chunks_missing" if data is None else f"chunks_{additions}"] += 1
                continue
            self.counters["refused"] += await fold(self._replica, additions, {})
            self.counters["restored"] += len(additions)
        return manifest.covers

    async def keep(self, covers: StreamId, seen: int) -> None:
        """Write a snapshot if one is due. ``covers``: how far the replica has read; ``seen``: how many announcements
        it knows of, its own included. Raises OSError."""
        manifest = await self._manifest()
        if manifest is not None and manifest != self._known:
            self._known, self._since = manifest, seen
        # A newcomer to an empty Redis may have written one before those who know more.
        much_more = manifest is not None and min(len(self._replica), self._options.newest) > 2 * manifest.entries
        due = manifest is None or much_more or seen - self._since >= self._options.every
        if due and len(self._replica) and await self._claim():
            await self._write(covers, manifest)
            self._since = seen

    async def _write(self, covers: StreamId, old: Manifest | None) -> None:
        name, chunks, entries = secrets.token_bytes(INSTANCE_BYTES), 0, 0
        draft = Manifest(name, covers, 0, 0)
        pending: list[Addition] = []
        for addition in chain(self._replica.contents(self._options.newest), [None]):
            if addition is not None:
                pending.append(addition)
            if pending and (addition is None or len(pending) == self._options.chunk_entries):
                await self._board.put({_chunk(draft, chunks): self._wire.chunk(pending)}, self._options.expire_s)
                chunks, entries = chunks + 1, entries + len(pending)
                pending = []
        manifest = Manifest(name, covers, chunks, entries)
        await self._board.put({_MANIFEST: self._wire.manifest(manifest)}, self._options.expire_s)
        self._known = manifest
        self.counters["written"] += 1
        if old is not None and old.chunks <= self._most_chunks():
            await self._board.expire([_chunk(old, number) for number in range(old.chunks)], self._options.grace_s)

    async def _manifest(self) -> Manifest | None:
        (data,) = await self._board.get([_MANIFEST])
        manifest = None if data is None else self._wire.read_manifest(data)
        if isinstance(manifest, Fault):
            self.counters[f"manifests_{manifest}"] += 1
            return None
        return manifest

    async def _claim(self) -> bool:
        return await self._board.claim(_LEASE, secrets.token_bytes(INSTANCE_BYTES), self._options.lease_s)

    def _most_chunks(self) -> int:
        return -(-self._options.newest // self._options.chunk_entries) + 1


def _chunk(manifest: Manifest, number: int) -> str:
    return f"chunk:{manifest.snapshot.hex()}:{number}"
