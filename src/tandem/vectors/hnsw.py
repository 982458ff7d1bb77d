"""One graph for all rows: a search looks at about a thousand of a million."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotFile
from tandem.vectors.graph import Graph
from tandem.vectors.snapshot import Snapshot
from tandem.vectors.storage import TYPES, checked, checked_codes, checked_ids, encode, lengths, unit_rows
from tandem.vectors.turns import Turns

# Rows added before others get their turn: a millisecond or two in a graph of a million.
_STEP = 2
# Fetched beyond k. The graph compares the query as int8, too, which swaps neighbours less than 0.001 apart; so a few
# more are ranked anew by the exact cosine with the query as it is.
_EXTRA = 6


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
        unit = unit_rows(rows, self.dims)
        codes = encode(unit, self.options.storage)
        ids = np.full((len(unit), k), NOTHING, np.int64)
        cosines = np.full((len(unit), k), -1, np.float32)
        for place in range(len(unit)):
            with self._lock:
                if not len(self._graph):
                    break
                near, held = self._graph.near(codes[place : place + 1], k + _EXTRA)
            wide = held.astype(np.float32)
            exact = (wide @ unit[place]) / lengths(wide)
            best = (-exact).argsort(kind="stable")[:k]
            ids[place, : len(best)] = near[best]
            cosines[place, : len(best)] = exact[best]
        # Not clip, which costs ten times as much on so few numbers.
        np.minimum(cosines, 1, out=cosines)
        return ids, np.maximum(cosines, -1, out=cosines)

    def memory_bytes(self) -> int:
        with self._lock:
            return self._graph.nbytes

    def ids(self) -> Ids:
        with self._lock:
            return self._graph.ids()

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        ids = checked_ids(ids)
        with self._lock:
            rows = self._graph.rows(ids.view(np.uint64))
        there = np.array([row is not None for row in rows], bool)
        found = [row for row in rows if row is not None]
        codes = np.stack(found) if found else np.empty((0, self.dims), TYPES[self.options.storage])
        return ids[there], codes

    def write(self, file: SnapshotFile, prefix: str = "") -> None:
        with self._lock:
            dump = self._graph.dump()
        file.part(f"{prefix}graph", dump)

    @classmethod
    def read(cls, options: IndexOptions, snapshot: Snapshot, prefix: str = "") -> HnswIndex:
        """What ``write`` wrote. Raises SnapshotBroken."""
        index = cls(options)
        index._graph.load(snapshot[f"{prefix}graph"])
        return index

    def close(self) -> None:
        """Nothing runs."""

    def _put(self, ids: Ids, codes: Codes) -> None:
        for start in range(0, len(ids), _STEP):
            with self._lock:
                self._graph.put(ids[start : start + _STEP], codes[start : start + _STEP])
