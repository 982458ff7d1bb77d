"""An instance's own copy of what all instances know, and how others' announcements are folded into it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tandem.caching.base import Key
from tandem.caching.federated_wire import Addition
from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, Index, Storage

# Rows handed out at once when all of them are asked for.
_BLOCK = 256
# A key, its number, and a place for each in a table, as tracemalloc counts them; a note's object and its place.
_KEY_BYTES, _NOTE_BYTES = 145, 90
# Additions and removals folded at once.
_SLICE, _REMOVALS = 16, 64
_SHORTEST, _LONGEST = 0.5, 1e5
_TYPES: dict[Storage, np.dtype[np.generic]] = {
    "int8": np.dtype("i1"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
}


class Replica(Protocol):
    """What a federation keeps in step. It is called from one event loop's thread.

    A snapshot is a list of additions and restoring one is folding it: so there is one way in, with one set of checks,
    and an instance that has rows of its own keeps them when it takes a snapshot in.
    """

    def __len__(self) -> int: ...

    def fold(self, added: Sequence[Addition], removed: Mapping[Key, float]) -> int:
        """Take in what others removed, and when by their calendars, then what they added. Returns how many additions
        were refused, as their signatures made no sense. What is there is replaced, what is gone stays gone: any of it
        may come twice, or later than what it came before. Raises nothing for any bytes."""
        ...

    def contents(self, newest: int) -> Iterator[Addition]:
        """The ``newest`` so many entries, the oldest of them first. It may change while it is read: what is added then
        need not come, what is removed may."""
        ...


async def fold(replica: Replica, added: Sequence[Addition], removed: Mapping[Key, float]) -> int:
    """As ``Replica.fold``, with turns for others in between: a graph takes up to a millisecond for each addition, and
    requests are not to wait for hundreds of them."""
    refused = 0
    said = list(removed.items())
    for start in range(0, len(said), _REMOVALS):
        refused += replica.fold([], dict(said[start : start + _REMOVALS]))
        await asyncio.sleep(0)
    for start in range(0, len(added), _SLICE):
        refused += replica.fold(added[start : start + _SLICE], {})
        await asyncio.sleep(0)
    return refused


def signature_bytes(storage: Storage, dims: int) -> int:
    """Of a row of ``dims`` as an index of this storage keeps it."""
    return dims * _TYPES[storage].itemsize


class IndexReplica:
    """A replica over a vector index: signatures are rows as the index keeps them, so no row is rounded twice and every
    instance finds the same neighbours at the same cosines, whoever announced them."""

    def __init__(self, index: Index, storage: Storage, capacity: int) -> None:
        """``storage`` is the index's; at most ``capacity`` entries are kept, those used last. Raises ValueError for
        an index that is not empty, or no capacity."""
        if len(index) or capacity < 1:
            raise ValueError(f"an empty index and room for an entry are needed, not {len(index)} and {capacity}")
        self.index = index
        self.capacity = capacity
        self.evicted = 0
        self._type = _TYPES[storage]
        self.signature_bytes = signature_bytes(storage, index.dims)
        # Insertion order is the order of use.
        self._ids: dict[Key, int] = {}
        self.keys = self._ids.keys()
        """A view of all that are there, those that were used last at the end."""
        self._keys: dict[int, Key] = {}
        self._notes: dict[Key, bytes] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, key: Key) -> bool:
        return key in self._ids

    def note(self, key: Key) -> bytes:
        """What was noted with ``key``; empty for one that is not there."""
        return self._notes.get(key, b"")

    def add(self, keys: Sequence[Key], rows: Rows, notes: Sequence[bytes] | None = None) -> list[Addition]:
        """Take in rows float32 [n, d] of this instance's own; returns what to announce. Raises ValueError for rows that
        have no direction."""
        notes = notes or [b""] * len(keys)
        # The index keeps the last of an id that comes twice, and what is announced is what it keeps.
        ids = self._numbers(keys)
        self.index.add(ids, rows)
        self._note(keys, ids, notes)
        there, codes = self.index.stored(ids)
        additions = self._additions(there, codes)
        self._evict()
        return additions

    def remove(self, keys: Sequence[Key]) -> int:
        """Forget them; how many were there."""
        gone = [self._ids.pop(key) for key in dict.fromkeys(keys) if key in self._ids]
        for id_ in gone:
            self._notes.pop(self._keys.pop(id_), None)
        if gone:
            self.index.remove(np.array(gone, np.int64))
        return len(gone)

    def search(self, row: NDArray[np.float32], k: int, bound: float) -> list[tuple[Key, float]]:
        """The at most ``k`` nearest of ``row`` float32 [d] with a cosine of at least ``bound``, the best first."""
        ids, cosines = self.index.search(row[None, :], k)
        return [
            (self._keys[id_], cosine)
            for id_, cosine in zip(ids[0].tolist(), cosines[0].tolist(), strict=True)
            if id_ != NOTHING and cosine >= bound and id_ in self._keys
        ]

    def used(self, key: Key) -> None:
        """It was of use: it is the last to be evicted."""
        id_ = self._ids.pop(key, None)
        if id_ is not None:
            self._ids[key] = id_

    def fold(self, added: Sequence[Addition], removed: Collection[Key]) -> int:
        """As ``Replica``; times are not looked at: what comes last counts."""
        self.remove(list(removed))
        fitting = [one for one in added if len(one.signature) == self.signature_bytes]
        if not fitting:
            return len(added)
        joined = b"".join(one.signature for one in fitting)
        codes = np.frombuffer(joined, self._type).reshape(len(fitting), self.index.dims)
        # An honest row has length 1 in floats, 127 to 127 * sqrt(d) in int8. What is far off has no direction, is not
        # finite, or would not be where the index squares it in float32. NaN is in no range.
        with np.errstate(invalid="ignore"):
            lengths = np.sqrt(np.square(codes, dtype=np.float64).sum(axis=1))
        sound = (lengths > _SHORTEST) & (lengths < _LONGEST)
        fitting = [one for one, good in zip(fitting, sound.tolist(), strict=True) if good]
        keys = [one.key for one in fitting]
        ids = self._numbers(keys)
        self.index.add_stored(ids, codes[sound].astype(self._type.newbyteorder("="), copy=False))
        self._note(keys, ids, [one.note for one in fitting])
        self._evict()
        return len(added) - len(fitting)

    def contents(self, newest: int) -> Iterator[Addition]:
        keys = list(islice(self._ids, max(len(self._ids) - newest, 0), None))
        for start in range(0, len(keys), _BLOCK):
            ids = [self._ids[key] for key in keys[start : start + _BLOCK] if key in self._ids]
            yield from self._additions(*self.index.stored(np.array(ids, np.int64)))

    def memory_bytes(self) -> int:
        """The index, keys and notes, with what CPython adds to each."""
        notes = sum(len(note) + _NOTE_BYTES for note in self._notes.values())
        return self.index.memory_bytes() + len(self._ids) * _KEY_BYTES + notes

    def _numbers(self, keys: Sequence[Key]) -> Ids:
        """An id for each key: the one it has, or the next; equal keys get one."""
        ids = np.empty(len(keys), np.int64)
        fresh: dict[Key, int] = {}
        for place, key in enumerate(keys):
            known = self._ids.get(key)
            ids[place] = fresh.setdefault(key, self._next + len(fresh)) if known is None else known
        self._next += len(fresh)
        return ids

    def _note(self, keys: Sequence[Key], ids: Ids, notes: Sequence[bytes]) -> None:
        for key, id_, note in zip(keys, ids.tolist(), notes, strict=True):
            self._ids.pop(key, None)
            self._ids[key] = id_
            self._keys[id_] = key
            if note:
                self._notes[key] = note
            else:
                self._notes.pop(key, None)

    def _evict(self) -> None:
        surplus = len(self._ids) - self.capacity
        if surplus > 0:
            self.evicted += self.remove(list(islice(self._ids, surplus)))

    def _additions(self, ids: Ids, codes: Codes) -> list[Addition]:
        stored = np.ascontiguousarray(codes, self._type)
        keys = (self._keys[id_] for id_ in ids.tolist())
        return [Addition(key, row.tobytes(), self.note(key)) for key, row in zip(keys, stored, strict=True)]
