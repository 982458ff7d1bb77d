"""The entries of one namespace: by id, by meaning, by when they expire."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import msgspec
import numpy as np

from tandem.semantic.base import Hit, Namespace, NamespaceStatistics, Vector
from tandem.semantic.verdicts import Verdicts
from tandem.types import Rows
from tandem.vectors.base import NOTHING, Index

# Entry, its places in the tables by id and by age, a serial number, the index's own books. Measured, CPython 3.12.
ENTRY_BYTES = 700
_EXPIRED_AT_ONCE = 64
"""Expired entries that one call clears away: a million that expire together must not stop the service."""
_SPARE = 8
# Times of entries that went before theirs: so many beyond the number of entries are kept, and one call passes over.
_STALE = 1000
_SEARCHES = 8


class Entry(msgspec.Struct, eq=False, gc=False):
    """What is kept of an item, but for its vector, which the index holds. ``asked`` is for eviction."""

    serial: int
    id: str
    payload: bytes
    text: str | None
    stored_s: float
    expires_s: float
    asked: bool = False


def cost(entry: Entry, dims: int) -> int:
    """Bytes that ``entry`` is charged with: what it holds, its vector as float32, and books."""
    text = len(entry.text.encode()) if entry.text is not None else 0
    return len(entry.payload) + text + 2 * len(entry.id) + 4 * dims + ENTRY_BYTES


Found: TypeAlias = tuple[Entry, float]
"""An entry and its cosine."""


class Space:
    """One namespace. Serial numbers are the cache's, so that they tell entries of all namespaces apart.

    ``is_former``: its vectors are of a model that is no longer served. ``is_closed``: nobody finds it any more, and
    what it holds goes bit by bit.
    """

    def __init__(self, namespace: Namespace, index: Index, verdicts: Verdicts, is_former: bool = False) -> None:
        self.namespace = namespace
        self.index = index
        self.verdicts = verdicts
        self.is_former = is_former
        self.is_closed = False
        self.bytes = 0
        self._lookups = 0
        self._lookup_hits = 0
        self._entries: dict[int, Entry] = {}
        self._serials: dict[str, int] = {}
        self._expiries: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def is_idle(self) -> bool:
        """Nothing is kept and nothing was promised: it can go and come back without a difference."""
        return not self._entries and not len(self.verdicts)

    def by_id(self, entry_id: str) -> Entry | None:
        serial = self._serials.get(entry_id)
        return None if serial is None else self._entries[serial]

    def put(self, entries: Sequence[Entry], rows: Rows) -> None:
        """New entries, none of whose ids is there, with their vectors float32 [n, d]."""
        self.index.add(np.array([entry.serial for entry in entries], np.int64), rows)
        for entry in entries:
            self._entries[entry.serial] = entry
            self._serials[entry.id] = entry.serial
            self.bytes += cost(entry, self.index.dims)
            if entry.expires_s < np.inf:
                heapq.heappush(self._expiries, (entry.expires_s, entry.serial))
        if len(self._expiries) > 2 * len(self._entries) + _STALE:
            self._expiries = [one for one in self._expiries if one[1] in self._entries]
            heapq.heapify(self._expiries)

    def drop(self, entries: Sequence[Entry]) -> None:
        """Entries that are there."""
        self.index.remove(np.array([entry.serial for entry in entries], np.int64))
        for entry in entries:
            del self._entries[entry.serial], self._serials[entry.id]
            self.bytes -= cost(entry, self.index.dims)

    def serials(self) -> Iterable[int]:
        """Of its entries."""
        return self._entries.keys()

    def tear_down(self, most: int) -> list[int]:
        """Of one that is closed: let go of at most so many entries; their serial numbers. None when all is gone."""
        if not self._entries:
            return []
        gone = [self._entries.popitem()[0] for _ in range(min(most, len(self._entries)))]
        for _ in gone:
            self._serials.popitem()
        return gone

    def due(self, now: float) -> Iterator[Entry]:
        """Some of the entries whose time is over, for the caller to drop one by one."""
        found = 0
        for _ in range(_STALE):
            if found == _EXPIRED_AT_ONCE or not self._expiries or self._expiries[0][0] > now:
                return
            entry = self._entries.get(heapq.heappop(self._expiries)[1])
            if entry is not None:
                found += 1
                yield entry

    def nearest(self, vector: Vector, k: int, now: float) -> list[Found]:
        """The ``k`` nearest that have not expired, best first.

        Expired ones that still lie in the index take places of the answer, so a few more are asked for, and twice as
        many again where that was not enough. Where hundreds that expired together lie nearest, it is a miss.
        """
        wanted = k + _SPARE
        for _ in range(_SEARCHES):
            serials, cosines = self.index.search(vector[None], min(wanted, max(len(self._entries), 1)))
            found = [
                (entry, cosine)
                for serial, cosine in zip(serials[0].tolist(), cosines[0].tolist(), strict=True)
                if serial != NOTHING and (entry := self._entries.get(serial)) is not None and entry.expires_s > now
            ]
            if len(found) >= k or wanted >= len(self._entries):
                break
            wanted *= 2
        return found[:k]

    def count(self, is_hit: bool) -> None:
        self._lookups += 1
        self._lookup_hits += is_hit

    def statistics(self) -> NamespaceStatistics:
        return NamespaceStatistics(
            entries=len(self._entries),
            bytes=self.bytes,
            index_bytes=self.index.memory_bytes(),
            lookups=self._lookups,
            lookup_hits=self._lookup_hits,
            feedback_right=self.verdicts.right,
            feedback_wrong=self.verdicts.wrong,
            promises=self.verdicts.report(),
            former_model=self.is_former,
        )


def hit(found: Found, now: float) -> Hit:
    entry, similarity = found
    return Hit(entry.id, similarity, entry.payload, max(0.0, now - entry.stored_s), entry.text)
