"""What is kept of the texts that others may be answered from: not their rows, which lie in the cache in front."""

from __future__ import annotations

from collections import deque

import msgspec

from tandem.caching.base import Key
from tandem.caching.guards import Reading
from tandem.caching.near_sketches import SignatureIndex
from tandem.caching.signatures import Signature
from tandem.types import TokenIds

# CPython's objects of an anchor beside its letters: two structs, two strings, key, and its entry of a list and a dict.
_ENTRY_BYTES = 280


class Anchor(msgspec.Struct, frozen=True, gc=False):
    """A text whose row is the model's own."""

    key: Key
    space: str
    reading: Reading

    def memory_bytes(self) -> int:
        return _ENTRY_BYTES + len(self.reading.words) + len(self.reading.names)


class Anchors:
    """In a ring of ``capacity`` slots, so the oldest goes first. What is removed leaves its slot empty until the ring
    comes round. Without a signature an anchor waits, and is not found."""

    def __init__(self, index: SignatureIndex, capacity: int) -> None:
        self._index = index
        self._capacity = capacity
        self._ring: list[Anchor | None] = []
        self._slots: dict[Key, int] = {}
        self._next = 0
        self._bytes = 0
        self._waiting: deque[tuple[Anchor, TokenIds]] = deque()

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: Key) -> bool:
        return key in self._slots

    def add(self, anchor: Anchor, signature: Signature | None, ids: TokenIds) -> None:
        """Keep it; one of the same key is replaced. ``ids`` are for whoever signs it later, where ``signature`` is
        None."""
        self.remove(anchor.key)
        slot = self._next
        if slot == len(self._ring):
            self._ring.append(None)
        old = self._ring[slot]
        if old is not None:
            self.remove(old.key)
        # The index first: it may refuse, and then there must be no trace of it.
        if signature is not None:
            self._index.put(slot, signature, hash(anchor.space))
        else:
            self._waiting.append((anchor, ids))
        self._ring[slot] = anchor
        self._slots[anchor.key] = slot
        self._bytes += anchor.memory_bytes()
        self._next = (slot + 1) % self._capacity

    def remove(self, key: Key) -> bool:
        """Whether it was there."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return False
        anchor, self._ring[slot] = self._ring[slot], None
        if anchor is not None:
            self._bytes -= anchor.memory_bytes()
        self._index.drop(slot)
        return True

    def waiting(self) -> tuple[Anchor, TokenIds] | None:
        """The next anchor without a signature, for ``sign``, and its ids; it waits no longer."""
        while self._waiting:
            anchor, ids = self._waiting.popleft()
            if self._is_there(anchor):
                return anchor, ids
        return None

    def sign(self, anchor: Anchor, signature: Signature) -> None:
        """An anchor of ``waiting``: from now on it is found."""
        if self._is_there(anchor):
            self._index.put(self._slots[anchor.key], signature, hash(anchor.space))

    def nearest(self, signature: Signature, k: int, space: str) -> list[tuple[Anchor, float]]:
        """Anchors of one space with their cosines, the best first."""
        found = self._index.nearest(signature, k, hash(space))
        pairs = [(self._ring[slot], cosine) for slot, cosine in found]
        # Spaces of equal hashes are told apart here.
        return [(anchor, cosine) for anchor, cosine in pairs if anchor is not None and anchor.space == space]

    def clear(self) -> None:
        """Forget all."""
        for slot in self._slots.values():
            self._index.drop(slot)
        self._ring.clear()
        self._slots.clear()
        self._waiting.clear()
        self._bytes = self._next = 0

    def memory_bytes(self) -> int:
        """Anchors and index."""
        return self._bytes + self._index.memory_bytes()

    def _is_there(self, anchor: Anchor) -> bool:
        slot = self._slots.get(anchor.key)
        return slot is not None and self._ring[slot] is anchor
