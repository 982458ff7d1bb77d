"""The cells of a sharded index, and how one that has grown too large is split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import Codes, Ids, IndexOptions
from tandem.vectors.living import LivingIndex
from tandem.vectors.moving import Move
from tandem.vectors.renewal import Kind, has_graphs
from tandem.vectors.storage import decode
from tandem.vectors.turns import Turns
from tandem.vectors.work import Worker

# 2-means sees so many rows of a cell: its two centroids are means of thousands, and 384 numbers need no more.
_SAMPLE = 8192
_ROUNDS = 10
_SEED = 7
# A half smaller than this is no cell. 2-means then parts its sample at the median and goes on from there; where even
# that does not help, as with one row a thousand times, the cell stays whole until it has grown by half.
_LEAST = 0.05
_PATIENCE = 1.5


class Layout(msgspec.Struct, frozen=True, eq=False):
    """``cells`` and their ``centroids``, float32 [cells, d] at length 1. Replaced as a whole, so a search has one."""

    centroids: Rows
    cells: tuple[LivingIndex, ...]

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        """Each row into the cell of the nearest centroid. It must not be in another."""
        homes = np.argmax(decode(codes) @ self.centroids.T, axis=1)
        for home in np.unique(homes).tolist():
            here = homes == home
            self.cells[home].add_stored(ids[here], codes[here])

    def remove(self, ids: Ids) -> int:
        """From whichever cell has them; how many were there."""
        return sum(cell.remove(ids) for cell in self.cells)


class Cells:
    """``layout`` is the cells now, ``splits`` how often one was split. ``lock`` is held by who writes."""

    def __init__(self, options: IndexOptions, layout: Layout, worker: Worker) -> None:
        self.layout = layout
        self.splits = 0
        self.lock = Turns()
        self._options = options
        self._worker = worker
        self._splitting: LivingIndex | None = None
        self._move: Move | None = None
        self._whole: WeakKeyDictionary[LivingIndex, int] = WeakKeyDictionary()
        with self.lock:
            self._tend()

    def put(self, ids: Ids, codes: Codes) -> None:
        """Keep rows, each id once."""
        with self.lock:
            self._note(ids)
            # An id that is there may be in another cell than its new row's.
            self.layout.remove(ids)
            self.layout.add_stored(ids, codes)
            self._tend()

    def remove(self, ids: Ids) -> int:
        """Forget rows, and cells that are empty; how many rows were there."""
        with self.lock:
            self._note(ids)
            removed = self.layout.remove(ids)
            centroids, cells = self.layout.centroids, self.layout.cells
            kept = [place for place, cell in enumerate(cells) if len(cell) or cell is self._splitting] or [0]
            if len(kept) < len(cells):
                self.layout = Layout(centroids[kept], tuple(cells[place] for place in kept))
        return removed

    def _note(self, ids: Ids) -> None:
        if self._move is not None:
            self._move.note(ids)

    def _tend(self) -> None:
        if self._splitting is not None:
            return
        for cell in self.layout.cells:
            if len(cell) > max(2 * self._options.cell_rows, self._whole.get(cell, 0)):
                if self._worker.submit(partial(self._split, cell)):
                    self._splitting = cell
                return

    def _split(self, cell: LivingIndex, stopped: Callable[[], bool]) -> None:
        try:
            halves = self._halves(cell)
            with self.lock:
                self._move = Move(cell, halves, self.lock)
            self._move.run(stopped, partial(self._swap, cell, halves))
        finally:
            with self.lock:
                self._splitting = self._move = None
                if cell in self.layout.cells:
                    self._whole[cell] = int(len(cell) * _PATIENCE)
                self._tend()

    def _swap(self, cell: LivingIndex, halves: Layout) -> None:
        sizes = [len(half) for half in halves.cells]
        if min(sizes) < _LEAST * sum(sizes):
            return
        centroids, cells = self.layout.centroids, self.layout.cells
        kept = [place for place, other in enumerate(cells) if other is not cell]
        self.layout = Layout(
            np.concatenate([centroids[kept], halves.centroids]),
            (*(cells[place] for place in kept), *halves.cells),
        )
        self._splitting = self._move = None
        self.splits += 1

    def _halves(self, cell: LivingIndex) -> Layout:
        """Two empty cells with the centroids of a half of ``cell`` each."""
        ids = cell.ids()
        picked = np.random.default_rng(_SEED).choice(len(ids), min(_SAMPLE, len(ids)), replace=False)
        _, codes = cell.stored(ids[picked])
        kind: Kind = "hnsw" if len(ids) // 2 > self._options.linear_up_to and has_graphs() else "linear"
        cells = tuple(LivingIndex(self._options, self._worker, kind) for _ in range(2))
        return Layout(two_means(decode(codes)), cells)


def two_means(unit: Rows) -> Rows:
    """Centroids float32 [2, d], at length 1, of the two halves of rows at length 1, [n, d] with n >= 2."""
    centroids = unit[[0, int(np.argmin(unit @ unit[0]))]]
    for _ in range(_ROUNDS):
        lead: NDArray[np.float32] = unit @ (centroids[0] - centroids[1])
        first = lead > 0
        if not _LEAST <= first.mean() <= 1 - _LEAST:
            first = np.argsort(np.argsort(lead, kind="stable"), kind="stable") >= len(lead) // 2
        centroids = np.stack([unit[first].mean(axis=0), unit[~first].mean(axis=0)])
        lengths = np.sqrt(np.einsum("ij,ij->i", centroids, centroids))[:, None]
        centroids /= np.where(lengths > 0, lengths, 1)
    return centroids.astype(np.float32)
