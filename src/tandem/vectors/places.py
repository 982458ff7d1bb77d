"""Where the row of an id lies, for 12 bytes an id and not the hundred of a dict of integers."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from tandem.vectors.base import NOTHING, Ids

# What has changed stands in a dict, up to so many or this share of all, and is then merged into the sorted arrays:
# 10 ms for a million. Rejected: a hash table in an array, whose loops in Python are no faster and three times as long.
_FEW, _SHARE = 256, 1 / 16
# CPython's objects for an id and its place, beside the dict's own table.
_RECENT_BYTES = 64


class Places:
    """Not for several threads at once."""

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)
        self._at = np.empty(0, np.int32)
        self._recent: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """What it holds."""
        recent = sys.getsizeof(self._recent) + _RECENT_BYTES * len(self._recent)
        return self._ids.nbytes + self._at.nbytes + recent

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """The place of each, NOTHING for one that has none; [n] as ``ids``."""
        places = np.full(len(ids), NOTHING, np.int64)
        if len(self._ids):
            slots = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            places = np.where(self._ids[slots] == ids, self._at[slots], places)
        if self._recent:
            for number, one in enumerate(ids.tolist()):
                places[number] = self._recent.get(one, places[number])
        return places

    def put(self, ids: Ids, places: NDArray[np.int64]) -> None:
        """These are there now; with a place of NOTHING, nowhere. Each id once."""
        self._recent.update(zip(ids.tolist(), places.tolist(), strict=True))
        if len(self._recent) > max(_FEW, len(self._ids) * _SHARE):
            self._merge()

    def _merge(self) -> None:
        new = np.fromiter(self._recent, np.int64, len(self._recent))
        at = np.fromiter(self._recent.values(), np.int32, len(self._recent))
        self._recent.clear()
        kept, there = ~np.isin(self._ids, new), at != NOTHING
        ids = np.concatenate([self._ids[kept], new[there]])
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._at = np.concatenate([self._at[kept], at[there]])[order]
