"""An index that changes its kind as it grows, and its graph when that has worn out, while it is searched.

A few rows are searched one by one; beyond ``linear_up_to`` a graph is built; one of which many rows were removed
(``rebuild_after``) is built anew, and one that has shrunk to a quarter of ``linear_up_to`` is given up. All three
are the same work: fill a new index from the old one, which serves on, then do again what changed meanwhile, and swap.
Both are held in memory until then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import Codes, Ids, IndexOptions, SnapshotBroken, SnapshotFile
from tandem.vectors.hnsw import HnswIndex
from tandem.vectors.linear import LinearIndex
from tandem.vectors.renewal import Kind, Renewal, has_graphs, make
from tandem.vectors.snapshot import Snapshot
from tandem.vectors.work import Worker


class LivingIndex:
    """For any number of threads. Writers take turns; a search waits for a writer's few rows, never for a build."""

    def __init__(self, options: IndexOptions, worker: Worker | None = None, kind: Kind = "linear") -> None:
        """``worker``: whose thread builds; without one it has its own. ``kind``: what it is at first."""
        self.dims = options.dims
        self.options = options
        self.worker = worker or Worker(threaded=options.background)
        self._owns_worker = worker is None
        self._renewal = Renewal(options, make(kind, options), self.worker)

    @property
    def kind(self) -> Kind:
        """What it is now."""
        return "hnsw" if isinstance(self._renewal.current, HnswIndex) else "linear"

    @property
    def builds(self) -> int:
        """How often it was built anew."""
        return self._renewal.builds

    def __len__(self) -> int:
        return len(self._renewal.current)

    def add(self, ids: Ids, rows: Rows) -> None:
        with self._renewal.changing(ids) as current:
            current.add(ids, rows)

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        with self._renewal.changing(ids) as current:
            current.add_stored(ids, codes)

    def remove(self, ids: Ids) -> int:
        with self._renewal.changing(ids) as current:
            return current.remove(ids)

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        return self._renewal.current.search(rows, k)

    def memory_bytes(self) -> int:
        return self._renewal.current.memory_bytes()

    def ids(self) -> Ids:
        return self._renewal.current.ids()

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        return self._renewal.current.stored(ids)

    def write(self, file: SnapshotFile, prefix: str = "") -> None:
        self._renewal.current.write(file, prefix)

    @classmethod
    def read(
        cls, options: IndexOptions, snapshot: Snapshot, prefix: str = "", worker: Worker | None = None
    ) -> LivingIndex:
        """The parts of ``snapshot`` under ``prefix``, a graph or rows. Raises SnapshotBroken."""
        index = cls(options, worker)
        if not snapshot.has(f"{prefix}graph"):
            current: HnswIndex | LinearIndex = LinearIndex.read(options, snapshot, prefix)
        elif has_graphs():
            current = HnswIndex.read(options, snapshot, prefix)
        else:
            raise SnapshotBroken("this snapshot is of a graph, and usearch is not installed")
        index._renewal = Renewal(options, current, index.worker)
        return index

    def run_pending(self) -> int:
        """Do now, in this thread, what waits to be done; how many jobs. For tests, and for who wants no thread."""
        return self.worker.run_pending()

    def close(self) -> None:
        if self._owns_worker:
            self.worker.close()
