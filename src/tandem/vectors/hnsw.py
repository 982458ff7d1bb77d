"""A graph of near neighbours (HNSW, Malkov and Yashunin, arXiv:1603.09320), by usearch.

What was found out about usearch 2.26, and what follows from it here:

- It takes codes as they are and compares int8 by cosine whatever their scale, so ours go in unchanged. Its own rounding
  of a unit row, ``x * 127``, would leave MiniLM's components four bits.
- Its int8 distances round the query as well, which swaps neighbours less than 0.001 apart. So a few more are fetched
  and ranked anew by the exact cosine of the query with the kept row.
- ``add`` raises for a key that is there: replaced rows are removed first. A removed row stays as a node that is
  stepped over, until a later row takes its node and edges.
- Adding with several threads can leave rows that no search finds (its issue 735), and reusing nodes with several can
  lock up (396). So one thread adds.
- Its own lock lets one call in at a time, so ours costs no parallelism; ours is fair, and makes two calls one.
- Writing a snapshot to a path holds the interpreter's lock all the while (0.2 s for 20,000 rows); to memory, it does
  not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotBroken, SnapshotFile
from tandem.vectors.snapshot import Snapshot
from tandem.vectors.storage import TYPES, checked, checked_codes, checked_ids, encode, lengths, unit_rows
from tandem.vectors.turns import Turns

if TYPE_CHECKING:
    from usearch.compiled import Index as Graph

# Rows added, or queries answered, before others get their turn: a few milliseconds.
_STEP = 8
# Fetched beyond k, to be ranked anew.
_EXTRA = 8
# Of usearch's own: a pointer to a node and one to its row, for each it has room for; and 16 bytes an id in a hash
# table of a power of two, at most two thirds full.
_POINTER_BYTES, _LOOKUP_BYTES = 16, 16


class HnswIndex:
    """For any number of threads, which take turns of a few milliseconds. ``removed``: rows removed or replaced since
    it was built, which is what its graph has suffered."""

    def __init__(self, options: IndexOptions) -> None:
        """Raises ConfigError when usearch is not installed."""
        self.dims = options.dims
        self.options = options
        self.removed = 0
        self._graph = new_graph(options)
        self._lock = Turns()

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
            return self._remove(ids)

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        unit = unit_rows(rows, self.dims)
        codes = encode(unit, self.options.storage)
        ids = np.full((len(unit), k), NOTHING, np.int64)
        cosines = np.full((len(unit), k), -1, np.float32)
        for start in range(0, len(unit), _STEP):
            with self._lock:
                wanted = min(k + _EXTRA, len(self._graph))
                if not wanted:
                    break
                keys, _, counts, _, _ = self._graph.search_many(codes[start : start + _STEP], wanted, threads=1)
                for place, count in enumerate(counts.tolist(), start):
                    near = keys[place - start, :count]
                    # All are there: they were found under the same lock.
                    rows = np.stack([row for row in self._rows(near) if row is not None])
                    order, exact = _ranked(rows, unit[place], k)
                    ids[place, : len(order)] = near[order]
                    cosines[place, : len(order)] = exact
        return ids, cosines

    def memory_bytes(self) -> int:
        with self._lock:
            capacity = self._graph.capacity
            room = 1 << (max(len(self._graph) * 3 // 2, 1) - 1).bit_length()
            return self._graph.serialized_length + capacity * _POINTER_BYTES + room * _LOOKUP_BYTES

    def ids(self) -> Ids:
        with self._lock:
            return self._graph.get_keys_in_slice(0, len(self._graph)).astype(np.int64)

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        ids = checked_ids(ids)
        with self._lock:
            rows = self._rows(ids.view(np.uint64))
        there = np.array([row is not None for row in rows], bool)
        found = [row for row in rows if row is not None]
        codes = np.stack(found) if found else np.empty((0, self.dims), TYPES[self.options.storage])
        return ids[there], codes

    def write(self, file: SnapshotFile, prefix: str = "") -> None:
        # The graph is held in memory once more for as long.
        with self._lock:
            graph, removed = self._graph.save_index_to_buffer(), self.removed
        file.part(f"{prefix}graph", np.frombuffer(graph, np.uint8))
        file.part(f"{prefix}removed", np.array([removed], np.int64))

    @classmethod
    def read(cls, options: IndexOptions, snapshot: Snapshot, prefix: str = "") -> HnswIndex:
        """What ``write`` wrote. Raises SnapshotBroken."""
        index = cls(options)
        graph = index._graph
        try:
            graph.load_index_from_buffer(snapshot[f"{prefix}graph"])
        except (RuntimeError, ValueError) as error:
            raise SnapshotBroken(f"usearch can not read the graph of this snapshot: {error}") from error
        if graph.ndim != options.dims or graph.dtype != new_graph(options).dtype:
            raise SnapshotBroken(f"the graph of this snapshot has rows {graph.dtype} [{graph.ndim}]")
        graph.expansion_add, graph.expansion_search = options.expansion_add, options.expansion_search
        index.removed = int(snapshot[f"{prefix}removed"][0])
        return index

    def close(self) -> None:
        """Nothing runs."""

    def _put(self, ids: Ids, codes: Codes) -> None:
        keys = ids.view(np.uint64)
        for start in range(0, len(keys), _STEP):
            part = slice(start, start + _STEP)
            with self._lock:
                self._remove(ids[part])
                self._graph.add_many(keys[part], codes[part], threads=1)

    def _remove(self, ids: Ids) -> int:
        found = self._graph.remove_many(ids.view(np.uint64).tolist(), compact=False, threads=1)
        self.removed += found
        return found

    def _rows(self, keys: NDArray[np.uint64]) -> list[Codes | None]:
        kind = TYPES[self.options.storage]
        found = self._graph.get_many(keys, self._graph.dtype)
        return [None if row is None else row.reshape(-1).view(kind) for row in found]


def _ranked(codes: Codes, unit: NDArray[np.float32], k: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The places of the ``k`` best of rows [n, d] by their exact cosine with ``unit`` [d], and these; best first."""
    rows = codes.astype(np.float32)
    cosines = rows @ unit
    cosines /= lengths(rows)
    order = np.argsort(-cosines, kind="stable")[:k]
    return order, np.clip(cosines[order], -1, 1)


def new_graph(options: IndexOptions) -> Graph:
    """An empty one. Raises ConfigError when usearch is not installed."""
    try:
        # What it is written in, and not its wrapper: that one makes an object of each answer, at the price of a tenth
        # of a search.
        from usearch.compiled import Index, MetricKind, ScalarKind
    except ImportError as error:
        raise ConfigError("an HNSW index needs usearch: pip install usearch") from error
    kinds = {"int8": ScalarKind.I8, "float16": ScalarKind.F16, "float32": ScalarKind.F32}
    return Index(
        ndim=options.dims,
        dtype=kinds[options.storage],
        connectivity=options.connectivity,
        expansion_add=options.expansion_add,
        expansion_search=options.expansion_search,
        metric_kind=MetricKind.Cos,
    )
