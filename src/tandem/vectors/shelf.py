"""Rows by place in one piece, so that those of a few places anywhere are fetched with one call."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tandem.vectors.base import NOTHING, Codes, Ids, Storage
from tandem.vectors.storage import TYPES, lengths

# Room for so many more when it is full. Growing is cheap: the system moves the pages of a large array and copies none.
_MORE = 1 / 16
_LEAST = 64


class Shelf:
    """Places from 0 to ``n``, none ever given back. ``ids`` [room] has whose row lies there, NOTHING for a grave's;
    ``codes`` [room, d] the rows as they are kept, ``inverse`` [room] one over their lengths. Not for several threads
    at once, and no view of its arrays outlives the next ``append``."""

    def __init__(self, dims: int, storage: Storage) -> None:
        self.n = 0
        self.ids = np.empty(0, np.int64)
        self.inverse = np.empty(0, np.float32)
        self.codes: Codes = np.empty((0, dims), TYPES[storage])

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self.ids.nbytes + self.inverse.nbytes + self.codes.nbytes

    def append(self, codes: Codes) -> NDArray[np.int64]:
        """Keep rows [m, d]; their places [m], which are graves until ``ids`` says otherwise."""
        start, self.n = self.n, self.n + len(codes)
        if self.n > len(self.ids):
            room = max(self.n, _LEAST, int(len(self.ids) * (1 + _MORE)))
            # refcheck sees references that a debugger or a test holds, and would refuse for these.
            self.codes.resize((room, self.codes.shape[1]), refcheck=False)
            self.inverse.resize(room, refcheck=False)
            self.ids.resize(room, refcheck=False)
        self.codes[start : self.n] = codes
        self.inverse[start : self.n] = 1 / lengths(codes)
        self.ids[start : self.n] = NOTHING
        return np.arange(start, self.n)

    def live(self) -> Ids:
        """The ids of all rows that are no grave's."""
        ids: Ids = self.ids[: self.n]
        live: Ids = ids[ids != NOTHING]
        return live
