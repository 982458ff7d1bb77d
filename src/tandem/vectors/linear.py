"""Every row is looked at: exact, and the fastest for small sets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotBroken
from tandem.vectors.snapshot import Snapshot, SnapshotWriter
from tandem.vectors.storage import TYPES, checked, checked_codes, checked_ids, decode, encode, unit_rows
from tandem.vectors.turns import Turns

# Rows a block. As float32 they are 0.75 MB at 384 dimensions: int8 is widened in a core's second cache, not in memory.
_BLOCK = 512
# Cosines held at once, 16 MB: of more queries than fit, a part is searched at a time.
_SCORES = 1 << 22
# An int that is a key of a dict, beside the table itself: CPython's objects for the id and for its slot.
_ENTRY_BYTES = 64


class LinearIndex:
    """Rows in blocks without gaps: the last row moves into the place of one that is removed. For any number of threads,
    which take turns."""

    def __init__(self, options: IndexOptions) -> None:
        self.dims = options.dims
        self.options = options
        self._type = TYPES[options.storage]
        self._blocks: list[Codes] = []
        self._ids = np.empty(0, np.int64)
        self._inverse = np.empty(0, np.float32)
        self._slots: dict[int, int] = {}
        self._lock = Turns()

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, ids: Ids, rows: Rows) -> None:
        ids, unit = checked(ids, rows, self.dims)
        self._put(ids, encode(unit, self.options.storage))

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        self._put(*checked_codes(ids, codes, self.dims, self.options.storage))

    def remove(self, ids: Ids) -> int:
        ids = checked_ids(ids)
        with self._lock:
            found = [slot for one in ids.tolist() if (slot := self._slots.pop(one, None)) is not None]
            # From the end, so that the row that fills a gap is never one that is to go itself.
            for count, slot in enumerate(sorted(found, reverse=True)):
                last = len(self._slots) + len(found) - count - 1
                if slot != last:
                    self._move(last, slot)
            del self._blocks[-(-len(self._slots) // _BLOCK) + 1 :]
        return len(found)

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        unit = unit_rows(rows, self.dims)
        ids = np.full((len(unit), k), NOTHING, np.int64)
        cosines = np.full((len(unit), k), -1, np.float32)
        with self._lock:
            n = len(self._slots)
            wanted = min(k, n)
            step = max(1, _SCORES // max(n, 1))
            for start in range(0, len(unit) if wanted else 0, step):
                scores = self._scores(unit[start : start + step])
                best = _best(scores, wanted)
                ids[start : start + step, :wanted] = self._ids[best]
                cosines[start : start + step, :wanted] = np.take_along_axis(scores, best, 1)
        return ids, np.clip(cosines, -1, 1, out=cosines)

    def memory_bytes(self) -> int:
        with self._lock:
            held = sum(block.nbytes for block in self._blocks) + self._ids.nbytes + self._inverse.nbytes
            return held + sys.getsizeof(self._slots) + _ENTRY_BYTES * len(self._slots)

    def ids(self) -> Ids:
        with self._lock:
            return self._ids[: len(self._slots)].copy()

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        ids = checked_ids(ids)
        with self._lock:
            slots = np.array([self._slots.get(one, NOTHING) for one in ids.tolist()], np.int64)
            there = slots != NOTHING
            return ids[there], self._read(slots[there])

    def save(self, path: Path) -> None:
        with SnapshotWriter(path, "linear", self.options) as file:
            self.write(file)

    def write(self, file: SnapshotWriter, prefix: str = "") -> None:
        """This index as parts of a snapshot, their names under ``prefix``."""
        ids = self.ids()
        ids, codes = self.stored(ids)
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
        rows = decode(codes)
        inverse = np.einsum("ij,ij->i", rows, codes, dtype=np.float32)
        with self._lock:
            self._reserve(len(self._slots) + len(ids))
            slots = np.array([self._slots.setdefault(one, len(self._slots)) for one in ids.tolist()], np.int64)
            self._ids[slots] = ids
            self._inverse[slots] = 1 / inverse
            for block in np.unique(slots // _BLOCK).tolist():
                here = slots // _BLOCK == block
                self._blocks[block][slots[here] % _BLOCK] = codes[here]

    def _reserve(self, n: int) -> None:
        while len(self._blocks) * _BLOCK < n:
            self._blocks.append(np.zeros((_BLOCK, self.dims), self._type))
        if n > len(self._ids):
            room = max(n, _BLOCK, len(self._ids) * 3 // 2)
            self._ids = np.resize(self._ids, room)
            self._inverse = np.resize(self._inverse, room)

    def _move(self, source: int, target: int) -> None:
        self._blocks[target // _BLOCK][target % _BLOCK] = self._blocks[source // _BLOCK][source % _BLOCK]
        self._inverse[target] = self._inverse[source]
        self._ids[target] = self._ids[source]
        self._slots[int(self._ids[target])] = target

    def _read(self, slots: NDArray[np.int64]) -> Codes:
        codes = np.empty((len(slots), self.dims), self._type)
        for block in np.unique(slots // _BLOCK).tolist():
            here = slots // _BLOCK == block
            codes[here] = self._blocks[block][slots[here] % _BLOCK]
        return codes

    def _scores(self, unit: Rows) -> NDArray[np.float32]:
        """Cosines float32 [queries, rows]."""
        n = len(self._slots)
        scores = np.empty((len(unit), n), np.float32)
        wide = np.empty((_BLOCK, self.dims), np.float32)
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            block = self._blocks[start // _BLOCK][: stop - start]
            if block.dtype != np.float32:
                np.copyto(wide[: stop - start], block)
                block = wide[: stop - start]
            np.matmul(unit, block.T, out=scores[:, start:stop])
        scores *= self._inverse[:n]
        return scores


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """The places of the ``k`` largest of each row, the largest first."""
    best = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)
