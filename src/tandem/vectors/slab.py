"""Rows by place, in blocks: they grow without being copied, and are compared a block at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import Codes, Storage
from tandem.vectors.storage import TYPES, lengths

# Rows a block. As float32 they are 0.75 MB at 384 dimensions: int8 is widened in a core's second cache, not in memory.
_BLOCK = 512


class Slab:
    """Places from 0 to ``n``, all of them full. Not for several threads at once."""

    def __init__(self, dims: int, storage: Storage) -> None:
        self.dims = dims
        self._type = TYPES[storage]
        self._blocks: list[Codes] = []
        self._inverse = np.empty(0, np.float32)

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return sum(block.nbytes for block in self._blocks) + self._inverse.nbytes

    def resize(self, n: int) -> None:
        """Have room for ``n``, and give back what is more than a block too many."""
        while len(self._blocks) * _BLOCK < n:
            self._blocks.append(np.zeros((_BLOCK, self.dims), self._type))
        del self._blocks[-(-n // _BLOCK) + 1 :]
        room = len(self._blocks) * _BLOCK
        if n > len(self._inverse) or room < len(self._inverse) // 2:
            self._inverse = np.resize(self._inverse, max(room, n * 5 // 4))

    def put(self, places: NDArray[np.int64], codes: Codes) -> None:
        """Rows [n, d] to ``places`` [n], over what was there."""
        self._inverse[places] = 1 / lengths(codes)
        for block in np.unique(places // _BLOCK).tolist():
            here = places // _BLOCK == block
            self._blocks[block][places[here] % _BLOCK] = codes[here]

    def move(self, source: int, target: int) -> None:
        """The row at ``source`` over the one at ``target``."""
        self._blocks[target // _BLOCK][target % _BLOCK] = self._blocks[source // _BLOCK][source % _BLOCK]
        self._inverse[target] = self._inverse[source]

    def take(self, places: NDArray[np.int64]) -> Codes:
        """Rows [n, d] of ``places`` [n], copied."""
        codes = np.empty((len(places), self.dims), self._type)
        for block in np.unique(places // _BLOCK).tolist():
            here = places // _BLOCK == block
            codes[here] = self._blocks[block][places[here] % _BLOCK]
        return codes

    def cosines(self, unit: Rows, n: int) -> NDArray[np.float32]:
        """Of each query at length 1 with each of the first ``n`` rows, float32 [queries, n]."""
        found = np.empty((len(unit), n), np.float32)
        wide = np.empty((_BLOCK, self.dims), np.float32)
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            block = self._blocks[start // _BLOCK][: stop - start]
            if block.dtype != np.float32:
                np.copyto(wide[: stop - start], block)
                block = wide[: stop - start]
            np.matmul(unit, block.T, out=found[:, start:stop])
        found *= self._inverse[:n]
        return found
