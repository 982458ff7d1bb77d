"""Which kind of index some rows want, and how they get it while they are searched and written to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal, TypeAlias

from tandem.vectors.base import Ids, IndexOptions
from tandem.vectors.hnsw import HnswIndex
from tandem.vectors.linear import LinearIndex
from tandem.vectors.moving import Move
from tandem.vectors.storage import checked_ids
from tandem.vectors.turns import Turns
from tandem.vectors.work import Worker

Kind: TypeAlias = Literal["linear", "hnsw"]

# A build that failed (no memory, most likely) is tried again after this share of the rows has changed.
_PATIENCE = 0.1


def has_graphs() -> bool:
    """Whether usearch is installed."""
    return find_spec("usearch") is not None


def make(kind: Kind, options: IndexOptions) -> HnswIndex | LinearIndex:
    """An empty one. Raises ConfigError for a graph without usearch."""
    return HnswIndex(options) if kind == "hnsw" else LinearIndex(options)


class Renewal:
    """``current`` is the index that holds the rows now; ``builds``, how often it was replaced."""

    def __init__(self, options: IndexOptions, current: HnswIndex | LinearIndex, worker: Worker) -> None:
        self.current = current
        self.builds = 0
        self._options = options
        self._worker = worker
        self._building = False
        self._move: Move | None = None
        self._patience = 0
        self._lock = Turns()
        with self._lock:
            self._tend()

    @contextmanager
    def changing(self, ids: Ids) -> Iterator[HnswIndex | LinearIndex]:
        """``current``, to change these rows of it: one writer at a time. Raises ValueError for what are no ids."""
        ids = checked_ids(ids)
        with self._lock:
            if self._move is not None:
                self._move.note(ids)
            yield self.current
            self._patience = max(0, self._patience - len(ids))
            self._tend()

    def _tend(self) -> None:
        if not self._building and not self._patience and self._wanted() is not None:
            self._building = self._worker.submit(self._build)

    def _wanted(self) -> Kind | None:
        """What to build: another kind, or a graph in the place of a worn one."""
        n, current, options = len(self.current), self.current, self._options
        if isinstance(current, LinearIndex):
            return "hnsw" if n > options.linear_up_to and has_graphs() else None
        if n <= options.linear_up_to // 4:
            return "linear"
        return "hnsw" if current.graves > max(n, options.linear_up_to) * options.rebuild_after else None

    def _build(self, stopped: Callable[[], bool]) -> None:
        built = False
        try:
            with self._lock:
                kind = self._wanted()
                new = make(kind or "linear", self._options)
                self._move = Move(self.current, new, self._lock)
            built = kind is None or self._move.run(stopped, lambda: self._swap(new))
        finally:
            with self._lock:
                self._building, self._move = False, None
                if not built:
                    self._patience = int(len(self.current) * _PATIENCE) + 1
                self._tend()

    def _swap(self, new: HnswIndex | LinearIndex) -> None:
        self.current, self._move = new, None
        self.builds += 1
