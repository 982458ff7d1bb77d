"""Cells of rows that lie near each other, each an index of its own; a search looks into the nearest few.

A cell that has grown to twice ``cell_rows`` is split in two by 2-means on a sample (spherical: cosines, centroids at
length 1), in the background. So nothing is learned beforehand and the cells follow the data; bisecting k-means is what
Steinbach, Karypis and Kumar (2000) found as good as k-means from the start, and a split moves one cell and not all.

When this is worth having, and when not. Of 24,000 real MiniLM rows, queries near to one of them found it::

    one graph          recall 1.000                           a search 1           an add 1
    6 cells, graphs    2, 3, 4 probes: 0.978, 0.998, 1.000    a search 3, 4, 6     an add 2, with its share of splits
    36 cells, linear   4, 8, 16 probes: 0.986, 0.998, 1.000   a search 7, 16, 47   an add 1/7

So one graph is the better index for look-ups, since a graph grows by few steps where a probe starts anew, and
``best_index`` never shards. Cells bound what a rebuild, a snapshot and a writer hold up, or hold twice in memory, to a
cell's share; and with ``linear_up_to`` over ``cell_rows`` they need no graph at all, so that rows cost next to nothing
to add and to remove. That is for millions of rows that change all the time, and for large sets without usearch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotBroken, SnapshotFile
from tandem.vectors.cells import Cells, Layout
from tandem.vectors.living import LivingIndex
from tandem.vectors.snapshot import Snapshot
from tandem.vectors.storage import checked, checked_codes, checked_ids, encode, unit_rows
from tandem.vectors.work import Worker


class ShardedIndex:
    """For any number of threads; one writes at a time, and waits while a snapshot is written."""

    def __init__(self, options: IndexOptions) -> None:
        self.dims = options.dims
        self.options = options
        self.worker = Worker(threaded=options.background)
        first = Layout(np.zeros((1, options.dims), np.float32), (LivingIndex(options, self.worker),))
        self._cells = Cells(options, first, self.worker)

    def __len__(self) -> int:
        return sum(self.cells)

    @property
    def cells(self) -> tuple[int, ...]:
        """The rows of each."""
        return tuple(map(len, self._cells.layout.cells))

    def add(self, ids: Ids, rows: Rows) -> None:
        ids, unit = checked(ids, rows, self.dims)
        self._cells.put(ids, encode(unit, self.options.storage))

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        self._cells.put(*checked_codes(ids, codes, self.dims, self.options.storage))

    def remove(self, ids: Ids) -> int:
        return self._cells.remove(checked_ids(ids))

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        unit = unit_rows(rows, self.dims)
        layout = self._cells.layout
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
        layout = self._cells.layout
        return layout.centroids.nbytes + sum(cell.memory_bytes() for cell in layout.cells)

    def ids(self) -> Ids:
        return np.concatenate([cell.ids() for cell in self._cells.layout.cells])

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        found = [cell.stored(ids) for cell in self._cells.layout.cells]
        return np.concatenate([some for some, _ in found]), np.concatenate([codes for _, codes in found])

    def write(self, file: SnapshotFile, prefix: str = "") -> None:
        # Writers wait: a row that moves from one cell to another would be in both of the file, or in none.
        with self._cells.lock:
            file.part(f"{prefix}centroids", self._cells.layout.centroids)
            for number, cell in enumerate(self._cells.layout.cells):
                cell.write(file, f"{prefix}{number}/")

    @classmethod
    def read(cls, options: IndexOptions, snapshot: Snapshot) -> ShardedIndex:
        """What ``write`` wrote. Raises SnapshotBroken."""
        index = cls(options)
        centroids = snapshot["centroids"].astype(np.float32)
        if centroids.ndim != 2 or not len(centroids) or centroids.shape[1] != options.dims:
            raise SnapshotBroken(f"the centroids of this snapshot are {list(centroids.shape)}")
        cells = (LivingIndex.read(options, snapshot, f"{number}/", index.worker) for number in range(len(centroids)))
        index._cells = Cells(options, Layout(centroids, tuple(cells)), index.worker)
        return index

    def run_pending(self) -> int:
        """As LivingIndex.run_pending."""
        return self.worker.run_pending()

    def close(self) -> None:
        self.worker.close()
