"""Vector indexes by name."""

from __future__ import annotations

from collections.abc import Callable

from tandem.registry import Registry
from tandem.vectors.base import NOTHING, Codes, Ids, Index, IndexOptions, SnapshotBroken, VectorIndex
from tandem.vectors.choose import best_index, load_index, save_index

INDEXES: Registry[Callable[[IndexOptions], Index]] = Registry("vector index")
INDEXES.register("linear", "tandem.vectors.linear:LinearIndex")
INDEXES.register("hnsw", "tandem.vectors.hnsw:HnswIndex")
INDEXES.register("adaptive", "tandem.vectors.living:LivingIndex")
INDEXES.register("sharded", "tandem.vectors.sharded:ShardedIndex")

__all__ = [
    "INDEXES",
    "NOTHING",
    "Codes",
    "Ids",
    "Index",
    "IndexOptions",
    "SnapshotBroken",
    "VectorIndex",
    "best_index",
    "load_index",
    "save_index",
]
