"""What could hold the signatures of the near-duplicate tier: 64 bits each and a look at all, or a graph.

For ``bench/near_duplicates.py --part index``. Every index gets the same signatures in the same order and is full from
``capacity`` on, so that the oldest goes with each new one, as in a server that has run for a while. A graph answers
that by being built anew now and then, and "kept when full" holds its share of that. CPU time of one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tandem.bench.report import table
from tandem.caching.near_sketches import SignatureIndex, SketchIndex
from tandem.caching.signatures import Signature
from tandem.vectors import IndexOptions
from tandem.vectors.living import LivingIndex

_QUERIES = 1000
# A row is there to be found where its cosine is at least this.
_NEAR = 0.9


class GraphIndex:
    """HNSW behind the tier's contract, of one space."""

    def __init__(self, dims: int, connectivity: int, expansion_add: int, expansion_search: int) -> None:
        self.dims = dims
        options = IndexOptions(
            dims=dims,
            connectivity=connectivity,
            expansion_add=expansion_add,
            expansion_search=expansion_search,
            linear_up_to=0,
            background=False,
        )
        self._index = LivingIndex(options, kind="hnsw")

    def put(self, slot: int, signature: Signature, space: int) -> None:
        self._index.add(np.array([slot], np.int64), signature[None, :])
        self._index.run_pending()

    def drop(self, slot: int) -> None:
        self._index.remove(np.array([slot], np.int64))

    def nearest(self, signature: Signature, k: int, space: int) -> list[tuple[int, float]]:
        ids, cosines = self._index.search(signature[None, :], k)
        return list(zip(ids[0].tolist(), cosines[0].tolist(), strict=True))

    def memory_bytes(self) -> int:
        return self._index.memory_bytes()


def indexes(signatures: NDArray[np.float32], capacity: int) -> str:
    """A table. ``signatures`` [n, dims], n > capacity; the last thousand are the queries."""
    dims = signatures.shape[1]
    makers: dict[str, Callable[[], SignatureIndex]] = {
        "64 bits": lambda: SketchIndex(dims, capacity),
        "HNSW 16, 64, 24": lambda: GraphIndex(dims, 16, 64, 24),
        "HNSW 8, 32, 12": lambda: GraphIndex(dims, 8, 32, 12),
    }
    rows, queries = signatures[:-_QUERIES], signatures[-_QUERIES:]
    lines = []
    for name, make in makers.items():
        index, kept, kept_full = make(), 0.0, 0.0
        for place, row in enumerate(rows):
            started_s = time.thread_time()
            if place >= capacity:
                index.drop(place % capacity)
            index.put(place % capacity, row, 0)
            spent = time.thread_time() - started_s
            kept, kept_full = (kept, kept_full + spent) if place >= capacity else (kept + spent, kept_full)
        found, times = [], []
        for query in queries:
            started_s = time.thread_time()
            found.append(index.nearest(query, 4, 0))
            times.append(time.thread_time() - started_s)
        p50, p99 = np.quantile(times, (0.5, 0.99)).tolist()
        held = rows[-capacity:]
        cells = (1e6 * p50, 1e6 * p99, 1e6 * kept / capacity, 1e6 * kept_full / (len(rows) - capacity))
        recall = f"{recall_of(found, held, len(rows) - capacity, queries):.1%}"
        lines.append((name, *(f"{cell:.0f} us" for cell in cells), recall, f"{index.memory_bytes() / capacity:.0f}"))
    head = ("index", "search p50", "p99", "kept", "kept when full", f"found of those at {_NEAR}", "bytes a row")
    return table(head, lines)


def recall_of(
    found: list[list[tuple[int, float]]], held: NDArray[np.float32], first: int, queries: NDArray[np.float32]
) -> float:
    """Of queries with a row at ``_NEAR``, how many found the nearest; ``held``: the rows in order of age, of which the
    oldest is the ``first`` that came."""
    unit = held / np.linalg.norm(held, axis=1, keepdims=True)
    exact = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T
    best = exact.argmax(axis=1)
    near = [place for place in range(len(queries)) if exact[place, best[place]] >= _NEAR]
    right = [place for place in near if found[place] and (first + int(best[place])) % len(held) == found[place][0][0]]
    return len(right) / max(1, len(near))
