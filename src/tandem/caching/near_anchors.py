"""What is kept of the texts that others may be answered from: not their rows, which lie in the cache in front."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

import msgspec
import numpy as np

from tandem.caching.base import Key
from tandem.caching.guards import Reading
from tandem.caching.signatures import Signature
from tandem.vectors import NOTHING, IndexOptions, VectorIndex
from tandem.vectors.living import LivingIndex
from tandem.vectors.renewal import has_graphs

# CPython's objects of an anchor beside its bytes: struct, reading, three strings, key, two entries of dicts.
_ENTRY_BYTES = 520
# Rows that a search keeps in view; four of them are wanted.
_EXPANSION = 24


def near_index(dims: int, *, background: bool = False) -> LivingIndex:
    """An index for signatures of ``dims``: a graph from the first row on where that is to be had, as a linear search
    over a few hundred rows takes longer already, and one that looks at few rows, as only near ones matter. int8 is near
    enough: the threshold is learned on what it gives. ``background``: whether a thread builds it anew when it has worn
    out, as a server wants it."""
    options = IndexOptions(
        dims=dims, linear_up_to=0, expansion_add=64, expansion_search=_EXPANSION, background=background
    )
    return LivingIndex(options, kind="hnsw" if has_graphs() else "linear")


class Anchor(msgspec.Struct, frozen=True):
    """A text whose row is the model's own. ``ids``: its tokens, int32 as bytes."""

    key: Key
    space: str
    reading: Reading
    ids: bytes

    def tokens(self) -> list[int]:
        tokens: list[int] = np.frombuffer(self.ids, np.int32).tolist()
        return tokens

    def memory_bytes(self) -> int:
        return _ENTRY_BYTES + len(self.ids) + len(self.reading.words) + len(self.reading.names)


class Anchors:
    """At most ``capacity``; the oldest goes first. Without a signature an anchor waits, and is not found."""

    def __init__(self, index: VectorIndex, capacity: int) -> None:
        self._index = index
        self._capacity = capacity
        self._anchors: dict[int, Anchor] = {}
        self._ids: dict[Key, int] = {}
        self._oldest = self._next = 0
        self._bytes = 0
        self._waiting: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._anchors)

    def __contains__(self, key: Key) -> bool:
        return key in self._ids

    def add(self, anchor: Anchor, signature: Signature | None) -> None:
        """Keep it; one of the same key is replaced."""
        self.remove(anchor.key)
        while len(self._anchors) >= self._capacity:
            self._remove(self._first())
        number, self._next = self._next, self._next + 1
        # The index first: it may refuse, and then there must be no trace of it.
        if signature is None:
            self._waiting.append(number)
        else:
            self._index.add(np.array([number], np.int64), signature[None, :])
        self._anchors[number] = anchor
        self._ids[anchor.key] = number
        self._bytes += anchor.memory_bytes()

    def remove(self, key: Key) -> bool:
        """Whether it was there."""
        found = self._ids.get(key)
        if found is not None:
            self._remove(found)
        return found is not None

    def waiting(self, most: int) -> list[Anchor]:
        """Anchors without a signature, ``most`` at most, for ``sign``."""
        while self._waiting and self._waiting[0] not in self._anchors:
            self._waiting.popleft()
        return [self._anchors[one] for one in islice(self._waiting, most) if one in self._anchors]

    def sign(self, anchors: Sequence[Anchor], signatures: Sequence[Signature]) -> None:
        """Their signatures, for anchors of ``waiting``: from now on they are found."""
        ids = np.array([self._ids[anchor.key] for anchor in anchors], np.int64)
        self._index.add(ids, np.stack(signatures))
        signed = set(ids.tolist())
        self._waiting = deque(one for one in self._waiting if one not in signed)

    def nearest(self, signature: Signature, k: int) -> list[tuple[Anchor, float]]:
        """Anchors with their cosines, the best first."""
        ids, cosines = self._index.search(signature[None, :], k)
        pairs = zip(ids[0].tolist(), cosines[0].tolist(), strict=True)
        return [(self._anchors[one], cosine) for one, cosine in pairs if one != NOTHING and one in self._anchors]

    def clear(self) -> None:
        """Forget all."""
        if self._anchors:
            self._index.remove(np.array(list(self._anchors), np.int64))
        self._anchors.clear()
        self._ids.clear()
        self._waiting.clear()
        self._bytes = 0

    def memory_bytes(self) -> int:
        """Anchors and index."""
        return self._bytes + self._index.memory_bytes()

    def _first(self) -> int:
        # Ids only grow, so this walks over each once in its life; a dict's own first is a walk over its dead.
        while self._oldest not in self._anchors:
            self._oldest += 1
        return self._oldest

    def _remove(self, found: int) -> None:
        anchor = self._anchors.pop(found)
        del self._ids[anchor.key]
        self._bytes -= anchor.memory_bytes()
        self._index.remove(np.array([found], np.int64))
