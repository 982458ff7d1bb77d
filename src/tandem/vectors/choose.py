"""Which index to take, and how to have one back from the disk."""

from __future__ import annotations

from pathlib import Path

from tandem.vectors.base import Index, IndexOptions
from tandem.vectors.living import LivingIndex
from tandem.vectors.sharded import ShardedIndex
from tandem.vectors.snapshot import SnapshotWriter, read_snapshot


def best_index(options: IndexOptions) -> Index:
    """Linear while it is small, or for good where usearch is not installed; else a graph."""
    return LivingIndex(options)


def save_index(index: Index, path: Path) -> None:
    """A snapshot, whole or not at all: ``path`` is the old one until the new one is on the disk. Raises OSError."""
    kind = "sharded" if isinstance(index, ShardedIndex) else "plain"
    with SnapshotWriter(path, kind, index.options) as file:
        index.write(file)


def load_index(path: Path, options: IndexOptions) -> Index:
    """The index that was saved to ``path``: sharded if it was, else the best one.

    Raises SnapshotBroken when the file is damaged, no snapshot, or holds other rows than ``options`` says: the caller
    starts empty. Raises FileNotFoundError when there is none, OSError when it can not be read.
    """
    snapshot = read_snapshot(path, options)
    if snapshot.contents.kind == "sharded":
        return ShardedIndex.read(options, snapshot)
    return LivingIndex.read(options, snapshot)
