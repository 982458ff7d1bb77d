"""Every row is looked at: exact, and the fastest for small sets."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotBroken, SnapshotFile
from tandem.vectors.slab import Slab
from tandem.vectors.snapshot import Snapshot
from tandem.vectors.storage import checked, checked_codes, checked_ids, encode, unit_rows
from tandem.vectors.turns import Turns

# Cosines held at once, 16 MB: of more queries than fit, a part is searched at a time.
_SCORES = 1 << 22
# CPython's objects for an id and for its place, beside the dict's own table.
_ENTRY_BYTES = 64


class LinearIndex:
    """Rows without gaps: the last one moves into the place of one that is removed. For any number of threads, which
    take turns."""

    def __init__(self, options: IndexOptions) -> None:
        self.dims = options.dims
        self.options = options
        self._slab = Slab(options.dims, options.storage)
        self._ids = np.empty(0, np.int64)
        self._places: dict[int, int] = {}
        self._lock = Turns()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, ids: Ids, rows: Rows) -> None:
        ids, unit = checked(ids, rows, self.dims)
        self._put(ids, encode(unit, self.options.storage))

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        self._put(*checked_codes(ids, codes, self.dims, self.options.storage))

    def remove(self, ids: Ids) -> int:
        ids = checked_ids(ids)
        with self._lock:
            last = len(self._places)
            gone = [place for one in ids.tolist() if (place := self._places.pop(one, None)) is not None]
            # From the end, so that the row that fills a gap is never one that is to go itself.
            for place in sorted(gone, reverse=True):
                last -= 1
                if place != last:
                    self._slab.move(last, place)
                    self._ids[place] = self._ids[last]
                    self._places[int(self._ids[place])] = place
            self._slab.resize(last)
        return len(gone)

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        unit = unit_rows(rows, self.dims)
        ids = np.full((len(unit), k), NOTHING, np.int64)
        cosines = np.full((len(unit), k), -1, np.float32)
        with self._lock:
            n = len(self._places)
            wanted = min(k, n)
            step = max(1, _SCORES // max(n, 1))
            for start in range(0, len(unit) if wanted else 0, step):
                scores = self._slab.cosines(unit[start : start + step], n)
                best = _best(scores, wanted)
                ids[start : start + step, :wanted] = self._ids[best]
                cosines[start : start + step, :wanted] = np.take_along_axis(scores, best, 1)
        return ids, np.clip(cosines, -1, 1, out=cosines)

    def memory_bytes(self) -> int:
        with self._lock:
            books = sys.getsizeof(self._places) + _ENTRY_BYTES * len(self._places)
            return self._slab.nbytes + self._ids.nbytes + books

    def ids(self) -> Ids:
        with self._lock:
            return self._ids[: len(self._places)].copy()

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        ids = checked_ids(ids)
        with self._lock:
            places = np.array([self._places.get(one, NOTHING) for one in ids.tolist()], np.int64)
            there = places != NOTHING
            return ids[there], self._slab.take(places[there])

    def write(self, file: SnapshotFile, prefix: str = "") -> None:
        ids, codes = self.stored(self.ids())
        file.part(f"{prefix}ids", ids)
        file.part(f"{prefix}codes", codes)

    @classmethod
    def read(cls, options: IndexOptions, snapshot: Snapshot, prefix: str = "") -> LinearIndex:
        """What ``write`` wrote. Raises SnapshotBroken."""
        index = cls(options)
        try:
            index.add_stored(snapshot[f"{prefix}ids"], snapshot[f"{prefix}codes"])
        except ValueError as error:
            raise SnapshotBroken(f"the rows of this snapshot do not fit: {error}") from error
        return index

    def close(self) -> None:
        """Nothing runs."""

    def _put(self, ids: Ids, codes: Codes) -> None:
        with self._lock:
            places = np.array([self._places.setdefault(one, len(self._places)) for one in ids.tolist()], np.int64)
            n = len(self._places)
            self._slab.resize(n)
            if n > len(self._ids):
                self._ids = np.resize(self._ids, max(n, 64, len(self._ids) * 5 // 4))
            self._ids[places] = ids
            self._slab.put(places, codes)


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """The places of the ``k`` largest of each row, the largest first."""
    best = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)
