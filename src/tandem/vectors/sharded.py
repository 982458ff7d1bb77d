"""Cells of rows that lie near each other, each an index of its own; a search looks into the nearest few.

A cell that has grown to twice ``cell_rows`` is split in two by 2-means on a sample (spherical: cosines, centroids at
length 1), in the background. So nothing is learned beforehand and the cells follow the data; bisecting k-means is what
Steinbach, Karypis and Kumar (2000) found as good as k-means from the start, and a split moves one cell and not all.

When this is worth having, and when not, measured by ``bench/ann.py``: one graph answers a single search faster, as a
graph of a million rows takes few more steps than one of 50,000, and each probe starts anew. Cells bound what a rebuild,
a snapshot and a writer hold up or hold in memory to a cell's share, and let searches in different cells run side by
side. So it is for millions of rows that change all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotBroken
from tandem.vectors.living import Kind, LivingIndex, has_graphs
from tandem.vectors.moving import Move
from tandem.vectors.snapshot import Snapshot, SnapshotWriter
from tandem.vectors.storage import checked, checked_codes, checked_ids, decode, encode, unit_rows
from tandem.vectors.turns import Turns
from tandem.vectors.work import Worker

# 2-means sees so many rows of a cell: its two centroids are means of thousands, and 384 numbers need no more.
_SAMPLE = 8192
_ROUNDS = 10
_SEED = 7
# A half smaller than this is no cell; then the rows are parted at the median between the two centroids.
_LEAST = 0.05


class Layout(msgspec.Struct, frozen=True, eq=False):
    """``cells`` and their ``centroids``, float32 [cells, d] at length 1. Replaced as a whole, so a search has one."""

    centroids: Rows
    cells: tuple[LivingIndex, ...]

    def nearest(self, unit: Rows) -> NDArray[np.intp]:
        """The cell of each row."""
        if len(self.cells) == 1:
            return np.zeros(len(unit), np.intp)
        return np.asarray(np.argmax(unit @ self.centroids.T, axis=1))

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        """Each row into its cell. It must not be in another."""
        homes = self.nearest(decode(codes))
        for home in np.unique(homes).tolist():
            here = homes == home
            self.cells[home].add_stored(ids[here], codes[here])

    def remove(self, ids: Ids) -> int:
        """From whichever cell has them; how many were there."""
        return sum(cell.remove(ids) for cell in self.cells)


class ShardedIndex:
    """For any number of threads; one writes at a time, and waits while a snapshot is written."""

    def __init__(self, options: IndexOptions) -> None:
        self.dims = options.dims
        self.options = options
        self.worker = Worker(threaded=options.background)
        self.splits = 0
        self._layout = Layout(np.zeros((1, options.dims), np.float32), (LivingIndex(options, self.worker),))
        self._splitting: LivingIndex | None = None
        self._move: Move | None = None
        self._lock = Turns()

    def __len__(self) -> int:
        return sum(map(len, self._layout.cells))

    @property
    def cells(self) -> tuple[int, ...]:
        """The rows of each."""
        return tuple(map(len, self._layout.cells))

    def add(self, ids: Ids, rows: Rows) -> None:
        ids, unit = checked(ids, rows, self.dims)
        self._put(ids, encode(unit, self.options.storage))

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        self._put(*checked_codes(ids, codes, self.dims, self.options.storage))

    def remove(self, ids: Ids) -> int:
        ids = checked_ids(ids)
        with self._lock:
            self._note(ids)
            removed = self._layout.remove(ids)
            self._drop_empty()
        return removed

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        unit = unit_rows(rows, self.dims)
        layout = self._layout
        probes = min(self.options.probes, len(layout.cells))
        near = np.argsort(unit @ layout.centroids.T, axis=1)[:, ::-1][:, :probes]
        ids = np.full((len(unit), probes * k), NOTHING, np.int64)
        cosines = np.full((len(unit), probes * k), -1, np.float32)
        for cell in np.unique(near).tolist():
            asked, rank = np.nonzero(near == cell)
            found, exact = layout.cells[cell].search(unit[asked], k)
            places = (asked[:, None], rank[:, None] * k + np.arange(k))
            ids[places], cosines[places] = found, exact
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(ids, order, 1), np.take_along_axis(cosines, order, 1)

    def memory_bytes(self) -> int:
        layout = self._layout
        return layout.centroids.nbytes + sum(cell.memory_bytes() for cell in layout.cells)

    def ids(self) -> Ids:
        return np.concatenate([cell.ids() for cell in self._layout.cells])

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        found = [cell.stored(ids) for cell in self._layout.cells]
        return np.concatenate([some for some, _ in found]), np.concatenate([codes for _, codes in found])

    def save(self, path: Path) -> None:
        # Writers wait: a row that moves from one cell to another would be in both of the file, or in none.
        with self._lock, SnapshotWriter(path, "sharded", self.options) as file:
            file.part("centroids", self._layout.centroids)
            for number, cell in enumerate(self._layout.cells):
                cell.write(file, f"{number}/")

    @classmethod
    def read(cls, options: IndexOptions, snapshot: Snapshot) -> ShardedIndex:
        """What ``save`` wrote. Raises SnapshotBroken."""
        index = cls(options)
        centroids = snapshot["centroids"].astype(np.float32)
        if centroids.ndim != 2 or not len(centroids) or centroids.shape[1] != options.dims:
            raise SnapshotBroken(f"the centroids of this snapshot are {list(centroids.shape)}")
        cells = (LivingIndex.read(options, snapshot, f"{number}/", index.worker) for number in range(len(centroids)))
        index._layout = Layout(centroids, tuple(cells))
        return index

    def run_pending(self) -> int:
        """As LivingIndex.run_pending."""
        return self.worker.run_pending()

    def close(self) -> None:
        self.worker.close()

    def _put(self, ids: Ids, codes: Codes) -> None:
        with self._lock:
            self._note(ids)
            # An id that is there may be in another cell than its new row's.
            self._layout.remove(ids)
            self._layout.add_stored(ids, codes)
            self._tend()

    def _note(self, ids: Ids) -> None:
        if self._move is not None:
            self._move.note(ids)

    def _drop_empty(self) -> None:
        layout = self._layout
        kept = [place for place, cell in enumerate(layout.cells) if len(cell) or cell is self._splitting] or [0]
        if len(kept) < len(layout.cells):
            self._layout = Layout(layout.centroids[kept], tuple(layout.cells[place] for place in kept))

    def _tend(self) -> None:
        if self._splitting is None:
            largest = max(self._layout.cells, key=len)
            if len(largest) > 2 * self.options.cell_rows and self.worker.submit(partial(self._split, largest)):
                self._splitting = largest

    def _split(self, cell: LivingIndex, stopped: Callable[[], bool]) -> None:
        try:
            halves = self._halves(cell)
            with self._lock:
                self._move = Move(cell, halves, self._lock)
            self._move.run(stopped, lambda: self._swap(cell, halves))
        finally:
            with self._lock:
                self._splitting = self._move = None
                self._tend()

    def _swap(self, cell: LivingIndex, halves: Layout) -> None:
        layout = self._layout
        kept = [place for place, other in enumerate(layout.cells) if other is not cell]
        self._layout = Layout(
            np.concatenate([layout.centroids[kept], halves.centroids]),
            (*(layout.cells[place] for place in kept), *halves.cells),
        )
        self._splitting = self._move = None
        self.splits += 1

    def _halves(self, cell: LivingIndex) -> Layout:
        """Two empty cells with the centroids of a half of ``cell`` each."""
        ids = cell.ids()
        picked = np.random.default_rng(_SEED).choice(len(ids), min(_SAMPLE, len(ids)), replace=False)
        _, codes = cell.stored(ids[picked])
        large = len(ids) // 2 > self.options.linear_up_to and has_graphs()
        kind: Kind = "hnsw" if large else "linear"
        return Layout(
            two_means(decode(codes)),
            tuple(LivingIndex(self.options, self.worker, kind) for _ in range(2)),
        )


def two_means(unit: Rows) -> Rows:
    """Centroids float32 [2, d], at length 1, of the two halves of rows at length 1, [n, d] with n >= 2."""
    centroids = unit[[0, int(np.argmin(unit @ unit[0]))]]
    for _ in range(_ROUNDS):
        lead = unit @ (centroids[0] - centroids[1])
        first = lead > 0
        if not _LEAST <= first.mean() <= 1 - _LEAST:
            first = np.argsort(np.argsort(lead, kind="stable"), kind="stable") >= len(lead) // 2
        centroids = np.stack([unit[first].mean(axis=0), unit[~first].mean(axis=0)])
        lengths = np.sqrt(np.einsum("ij,ij->i", centroids, centroids))[:, None]
        centroids /= np.where(lengths > 0, lengths, 1)
    return centroids.astype(np.float32)
