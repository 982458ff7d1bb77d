"""One graph for all rows: a search looks at about a thousand of a million."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotFile
from tandem.vectors.graph import Graph
from tandem.vectors.snapshot import Snapshot
from tandem.vectors.storage import checked, checked_codes, checked_ids, directed, encode
from tandem.vectors.turns import Turns

# Rows added before others get their turn: a millisecond or two in a graph of a million.
_STEP = 2
# Queries that share a turn, and the fixed cost of a search: a millisecond or two as well.
_TURN = 16
# Rows whose middle is taken for the middle of all that will come.
_SAMPLE = 8192


class HnswIndex:
    """For any number of threads, which take turns of a millisecond or two; while a snapshot is copied, of
    a third of a second for a million rows."""

    def __init__(self, options: IndexOptions) -> None:
        """Raises ConfigError when usearch is not installed."""
        self.dims = options.dims
        self.options = options
        self._graph = Graph(options)
        self._lock = Turns()

    @property
    def graves(self) -> int:
        """Nodes of rows that were removed or replaced."""
        return self._graph.graves

    def widen(self, expansion: int) -> None:
        """Search with this ef from now on, until rows are added; 0 is the options' own."""
        with self._lock:
            self._graph.widen(expansion)

    def __len__(self) -> int:
        return len(self._graph)

    def add(self, ids: Ids, rows: Rows) -> None:
        ids, unit = checked(ids, rows, self.dims)
        self._put(ids, encode(unit, self.options.storage))

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        self._put(*checked_codes(ids, codes, self.dims, self.options.storage))

    def remove(self, ids: Ids) -> int:
        ids = checked_ids(ids)
        with self._lock:
            return self._graph.bury(ids)

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        rows, long = directed(rows, self.dims)
        if len(rows) == 1:
            with self._lock:
                return self._graph.near(rows, long, k)
        ids = np.full((len(rows), k), NOTHING, np.int64)
        cosines = np.full((len(rows), k), -1, np.float32)
        for start in range(0, len(rows), _TURN):
            turn = slice(start, start + _TURN)
            with self._lock:
                ids[turn], cosines[turn] = self._graph.near(rows[turn], long[turn], k)
        return ids, cosines

    def memory_bytes(self) -> int:
        with self._lock:
            return self._graph.nbytes

    def ids(self) -> Ids:
        with self._lock:
            return self._graph.ids()

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        ids = checked_ids(ids)
        with self._lock:
            return self._graph.stored(ids)

    def write(self, file: SnapshotFile, prefix: str = "") -> None:
        with self._lock:
            parts = self._graph.dump()
        for name, part in parts.items():
            file.part(f"{prefix}{name}", part)

    @classmethod
    def read(cls, options: IndexOptions, snapshot: Snapshot, prefix: str = "") -> HnswIndex:
        """What ``write`` wrote. Raises SnapshotBroken."""
        index = cls(options)
        index._graph.load(snapshot, prefix)
        return index

    def close(self) -> None:
        """Nothing runs."""

    def _put(self, ids: Ids, codes: Codes) -> None:
        with self._lock:
            if not len(self._graph) and not self._graph.graves:
                self._graph.aim(codes[:: -(-len(codes) // _SAMPLE) or 1])
        for start in range(0, len(ids), _STEP):
            with self._lock:
                self._graph.put(ids[start : start + _STEP], codes[start : start + _STEP])
