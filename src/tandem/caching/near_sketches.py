"""What finds an anchor's signature: 64 bits of it for all, the cosine for the few whose bits are near.

A bit says on which side of a random plane a signature lies. Two signatures whose angle is a differ in a share a/pi of
such bits (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002), so of 64 bits a pair at
cosine 0.9 differs in 9 and strangers in 32. Every anchor's bits are looked at, which takes 0.8 us a thousand; then the
cosines of at most 128 say which is nearest.

The graph that all other indexes here are (HNSW) was built first. Among 27,000 anchors a search took it 62 to 87 us
where this takes 43; to keep one took 127 to 180 us where this takes 10; and as the oldest goes with each new one, which
a graph answers by being built anew again and again, 440 to 600 us once it was full. Of queries with a row at 0.9 it
finds 96 to 100 %, this 98 % (``python -m bench.near_duplicates --part index``). Looking at all grows with their number,
so this is for the tens of thousands whose rows are in memory, and not for millions.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tandem.caching.signatures import Signature

_BITS = 64
# Space of a slot that holds nothing.
_NONE = -1
# Cosines computed a search. Where more are within the radius, as among texts of one template, those with the fewest
# bits between. With 48 the nearest was missed in 6 % of searches that had one at 0.9, with 128 in 3 %, for 5 us.
_MOST = 128


class SignatureIndex(Protocol):
    """Signatures by slot, from 0 up."""

    dims: int

    def put(self, slot: int, signature: Signature, space: int) -> None:
        """Keep a finite signature [dims] that is not zero; what was in the slot is gone. ``space`` is a hash, which in
        Python is never -1. Raises ValueError for a signature of another length."""
        ...

    def drop(self, slot: int) -> None:
        """Never find it again. It may be empty."""
        ...

    def nearest(self, signature: Signature, k: int, space: int) -> list[tuple[int, float]]:
        """Slots of the nearest ``k`` of this space with their cosines, the best first; fewer where there are no more
        that are near at all. Raises ValueError for a signature of another length."""
        ...

    def memory_bytes(self) -> int:
        """What it holds."""
        ...


class SketchIndex:
    """Of ``capacity`` slots. What is looked at differs in no more bits than two signatures at cosine ``least`` do in
    the mean: with 0.75 that is 14, and of pairs at 0.9 one in 28 differs in more, at 0.95 one in 700; those are not
    found. With 12 to 20 the share that could be served by the static key stayed the same on five data sets. Cosines
    are off by what int8 rounds away, 0.0014 at most and 0.00024 in standard deviation (``vectors/storage.py``)."""

    def __init__(self, dims: int, capacity: int, least: float = 0.75, seed: int = 0) -> None:
        self.dims = dims
        self._radius = int(_BITS * math.acos(least) / math.pi)
        rng = np.random.default_rng(seed)
        self._planes = rng.standard_normal((dims, _BITS)).astype(np.float32)
        # Zeros take no memory before they are written to.
        self._sketches = np.zeros(capacity, np.uint64)
        self._codes = np.zeros((capacity, dims), np.int8)
        self._scales = np.zeros(capacity, np.float32)
        self._spaces = np.full(capacity, _NONE, np.int64)
        # A search's own: allocated anew each time they cost as much as the search.
        self._apart = np.zeros(capacity, np.uint64)
        self._distances = np.zeros(capacity, np.uint8)
        self._used = 0

    def put(self, slot: int, signature: Signature, space: int) -> None:
        self._check(signature)
        code = np.rint(signature * (127 / np.abs(signature).max())).astype(np.int8)
        wide = code.astype(np.float32)
        self._sketches[slot : slot + 1] = self._sketch(signature)
        self._codes[slot] = code
        self._scales[slot] = 1 / np.sqrt(wide @ wide)
        self._spaces[slot] = space
        self._used = max(self._used, slot + 1)

    def drop(self, slot: int) -> None:
        self._spaces[slot] = _NONE

    def nearest(self, signature: Signature, k: int, space: int) -> list[tuple[int, float]]:
        self._check(signature)
        used = self._used
        apart, distances = self._apart[:used], self._distances[:used]
        np.bitwise_xor(self._sketches[:used], self._sketch(signature), out=apart)
        np.bitwise_count(apart, out=distances)
        slots = (distances <= self._radius).nonzero()[0]
        slots = slots[self._spaces.take(slots) == space]
        if not len(slots):
            return []
        if len(slots) > _MOST:
            slots = slots[distances.take(slots).argpartition(_MOST)[:_MOST]]
        cosines = self._codes.take(slots, 0).astype(np.float32) @ signature
        cosines *= self._scales.take(slots)
        cosines *= -1 / math.sqrt(signature @ signature)
        best = cosines.argsort(kind="stable")[:k]
        found = zip(slots[best].tolist(), cosines[best].tolist(), strict=True)
        return [(slot, min(-cosine, 1.0)) for slot, cosine in found]

    def memory_bytes(self) -> int:
        a_slot = sum(array.itemsize for array in (self._sketches, self._scales, self._spaces))
        a_slot += self._apart.itemsize + self._distances.itemsize + self.dims
        return self._used * a_slot + self._planes.nbytes

    def _check(self, signature: Signature) -> None:
        if signature.shape != (self.dims,):
            raise ValueError(f"a signature has {self.dims} numbers, not {list(signature.shape)}")

    def _sketch(self, signature: Signature) -> NDArray[np.uint64]:
        """[1]."""
        return np.packbits(signature @ self._planes > 0).view(np.uint64)
