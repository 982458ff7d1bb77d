"""An index that changes its kind as it grows, and its graph when that has worn out, while it is searched.

A few rows are searched one by one; beyond ``linear_up_to`` a graph is built; one that has seen as many removals as
``rebuild_after`` says is built anew, and one that has shrunk to a quarter of ``linear_up_to`` is given up. All three
are the same work: fill a new index from the old one, which serves on, then do again what changed meanwhile, and swap.
Both are held in memory until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.base import Codes, Ids, IndexOptions, SnapshotBroken
from tandem.vectors.hnsw import HnswIndex
from tandem.vectors.linear import LinearIndex
from tandem.vectors.moving import Move
from tandem.vectors.snapshot import Snapshot, SnapshotWriter
from tandem.vectors.turns import Turns
from tandem.vectors.work import Worker

Kind: TypeAlias = Literal["linear", "hnsw"]

# A build that failed (no memory, most likely) is tried again after this share of the rows has changed.
_PATIENCE = 0.1


def has_graphs() -> bool:
    """Whether usearch is installed."""
    return find_spec("usearch") is not None


class LivingIndex:
    """For any number of threads. Writers take turns; a search waits for a writer's few rows, never for a build."""

    def __init__(self, options: IndexOptions, worker: Worker | None = None, kind: Kind = "linear") -> None:
        """``worker``: whose thread builds; without one it has its own. ``kind``: what it is at first."""
        self.dims = options.dims
        self.options = options
        self.worker = worker or Worker(threaded=options.background)
        self.builds = 0
        self._owns_worker = worker is None
        self._current = _make(kind, options)
        self._building = False
        self._move: Move | None = None
        self._patience = 0
        self._lock = Turns()

    @property
    def kind(self) -> Kind:
        """What it is now."""
        return "hnsw" if isinstance(self._current, HnswIndex) else "linear"

    def __len__(self) -> int:
        return len(self._current)

    def add(self, ids: Ids, rows: Rows) -> None:
        with self._changing(ids):
            self._current.add(ids, rows)

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        with self._changing(ids):
            self._current.add_stored(ids, codes)

    def remove(self, ids: Ids) -> int:
        with self._changing(ids):
            return self._current.remove(ids)

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        return self._current.search(rows, k)

    def memory_bytes(self) -> int:
        return self._current.memory_bytes()

    def ids(self) -> Ids:
        return self._current.ids()

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        return self._current.stored(ids)

    def save(self, path: Path) -> None:
        with SnapshotWriter(path, "adaptive", self.options) as file:
            self.write(file)

    def write(self, file: SnapshotWriter, prefix: str = "") -> None:
        """This index as parts of a snapshot, their names under ``prefix``."""
        self._current.write(file, prefix)

    @classmethod
    def read(
        cls, options: IndexOptions, snapshot: Snapshot, prefix: str = "", worker: Worker | None = None
    ) -> LivingIndex:
        """The parts of ``snapshot`` under ``prefix``, a graph or rows. Raises SnapshotBroken."""
        index = cls(options, worker)
        if snapshot.has(f"{prefix}graph"):
            if not has_graphs():
                raise SnapshotBroken("this snapshot is of a graph, and usearch is not installed")
            index._current = HnswIndex.read(options, snapshot, prefix)
        else:
            index._current = LinearIndex.read(options, snapshot, prefix)
        with index._lock:
            index._tend()
        return index

    def run_pending(self) -> int:
        """Do now, in this thread, what waits to be done; how many jobs. For tests, and for who wants no thread."""
        return self.worker.run_pending()

    def close(self) -> None:
        if self._owns_worker:
            self.worker.close()

    @contextmanager
    def _changing(self, ids: Ids) -> Iterator[None]:
        with self._lock:
            if self._move is not None:
                self._move.note(ids)
            yield
            self._patience = max(0, self._patience - len(ids))
            self._tend()

    def _tend(self) -> None:
        if not self._building and not self._patience and self._wanted() is not None:
            self._building = self.worker.submit(self._build)

    def _wanted(self) -> Kind | None:
        """What to build: another kind, or a graph in the place of a worn one."""
        n, current = len(self._current), self._current
        if isinstance(current, HnswIndex):
            if n <= self.options.linear_up_to // 4:
                return "linear"
            return "hnsw" if current.removed > max(n, self.options.linear_up_to) * self.options.rebuild_after else None
        return "hnsw" if n > self.options.linear_up_to and has_graphs() else None

    def _build(self, stopped: Callable[[], bool]) -> None:
        built = False
        try:
            with self._lock:
                kind = self._wanted()
                new = _make(kind or "linear", self.options)
                self._move = Move(self._current, new, self._lock)
            built = kind is None or self._move.run(stopped, lambda: self._swap(new))
        finally:
            with self._lock:
                self._building, self._move = False, None
                if not built:
                    self._patience = int(len(self) * _PATIENCE) + 1
                self._tend()

    def _swap(self, new: HnswIndex | LinearIndex) -> None:
        self._current, self._move = new, None
        self.builds += 1


def _make(kind: Kind, options: IndexOptions) -> HnswIndex | LinearIndex:
    return HnswIndex(options) if kind == "hnsw" else LinearIndex(options)
