"""A graph of near neighbours (HNSW, Malkov and Yashunin, arXiv:1603.09320), by usearch.

Its nodes are sketches of 48 bytes (``sketch.py``), and the nearest of what it finds are ranked by their exact cosines
with the query as it is. Against a graph over the int8 rows, 100,000 of them from MiniLM, that is a third of the time
at the same ef with as good a recall, and half of the time for a row that is added.

What was found out about usearch 2.26, and what follows from it here:

- A removed row's node is given to the next row that is added, and edges of others go on leading to it. After one
  turnover of 10,000 rows no search found 3.9 % of them, not by their own vector. So nothing is removed: whose row a
  node stands for is our own book, a grave's is nobody's. It serves on as a stepping stone and is left out of answers;
  0.02 % were lost. Graves take memory, so the graph is built anew when there are many (``renewal.py``).
- The same text is often stored again when it has expired. Then its grave is opened again: else a hundred of them would
  lie around its vector, and a search would have to look behind them all.
- Adding with several threads can leave rows that no search finds (its issue 735), so one thread adds.
- A call to search takes 7 microseconds before it looks at anything, half of them to ask the system for the number of
  its processors; several queries in one call share them.
- Its own lock lets one call in at a time, so one of ours around two calls costs no parallelism.
- Writing to a path holds the interpreter's lock all the while (0.2 s for 20,000 rows); writing to memory does not.
- Importing it opens no connection; it downloads only for its SQLite extension, which nothing here asks for.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.types import Rows
from tandem.vectors.base import NOTHING, Codes, Ids, IndexOptions, SnapshotBroken
from tandem.vectors.places import Places
from tandem.vectors.shelf import Shelf
from tandem.vectors.sketch import BITS, planes, planes_of
from tandem.vectors.snapshot import Snapshot
from tandem.vectors.storage import checked_codes, decode, lengths

if TYPE_CHECKING:
    from usearch.compiled import Index as Compiled

# Of usearch's own: a pointer to a node and one to its sketch, for each it has room for; and each begins on a line.
_POINTER_BYTES, _LINE_BYTES = 16, 64
# CPython's objects for a grave's hash and its place, beside the dict's own table.
_GRAVE_BYTES = 80
# ef up to so many rows, and how much wider it is with each doubling beyond.
_WIDTH, _NARROW_UP_TO, _WIDER = 64, 100_000, 1.25
# Ranked by exact cosines: so many, but no more than ef, nor fewer than this for each that is wanted.
_RANKED, _RANKED_EACH = 32, 2
# Under the cosine of anything.
_NOWHERE = -2
# An answer that has too many graves in it is asked for again, so many times as long.
_LONGER = 4


class Graph:
    """Codes by id. ``graves`` are nodes that stand for no row any more. Not for several threads at once."""

    def __init__(self, options: IndexOptions) -> None:
        """Raises ConfigError when usearch is not installed."""
        self._options = options
        self._compiled = _compiled(options)
        self._sketch = planes(options.dims)
        self._shelf = Shelf(options.dims, options.storage)
        self._places = Places()
        self._graves: dict[int, int] = {}
        self.graves = 0
        self.widen()

    def __len__(self) -> int:
        return self._shelf.n - self.graves

    @property
    def nbytes(self) -> int:
        """What it holds: nodes and edges, rows, and the books. Reckoned, as usearch's own figure has arenas in it that
        nothing was written to; the process grew by 1.5 % more at 100,000 rows."""
        connectivity = self._compiled.connectivity
        edges = 4 + 4 * connectivity
        # A key and a level, twice the edges on the ground, and what the one node in M has that reaches above it.
        node = _lines(10 + 2 * edges - 4) + _lines(BITS // 8) + edges / (connectivity - 1)
        usearch = int(len(self._compiled) * node) + self._compiled.capacity * _POINTER_BYTES
        graves = sys.getsizeof(self._graves) + _GRAVE_BYTES * len(self._graves)
        return usearch + self._shelf.nbytes + self._places.nbytes + graves

    def ids(self) -> Ids:
        """All of them."""
        return self._shelf.live()

    def put(self, ids: Ids, codes: Codes) -> None:
        """Keep rows [n, d] under ``ids`` [n], each once."""
        self.bury(ids)
        if self._graves:
            new = np.array([not self._unearthed(one, row) for one, row in zip(ids.tolist(), codes, strict=True)], bool)
            ids, codes = ids[new], codes[new]
        if not len(ids):
            return
        # Graves until they are in the graph as well: that may fail for want of memory.
        places = self._shelf.append(codes)
        self.graves += len(places)
        sketches = self._sketch(codes.astype(np.float32), lengths(codes))
        self._compiled.add_many(places.view(np.uint64), sketches, threads=1)
        self._name(ids, places)
        self.widen()

    def aim(self, codes: Codes) -> None:
        """Where nothing is kept yet: put the sketches' planes through the middle of rows like these [n, d]."""
        if not self._shelf.n:
            self._sketch = planes(self._options.dims).centred(decode(codes))

    def widen(self, expansion: int = 0) -> None:
        """Search with this ef; with 0, with the one of the options, or one for so many rows."""
        wanted = expansion or self._options.expansion_search or _expansion(self._shelf.n)
        if wanted != self._compiled.expansion_search:
            self._compiled.expansion_search = wanted

    def bury(self, ids: Ids) -> int:
        """Forget rows; how many were there."""
        ids = np.unique(ids)
        places = self._places.find(ids)
        there = places != NOTHING
        ids, places = ids[there], places[there]
        if len(ids):
            self._shelf.ids[places] = NOTHING
            self._places.put(ids, np.full(len(ids), NOTHING))
            self._graves.update((hash(self._shelf.codes[place].tobytes()), place) for place in places.tolist())
            self.graves += len(ids)
        return len(ids)

    def near(self, rows: Rows, long: NDArray[np.float32], k: int) -> tuple[Ids, NDArray[np.float32]]:
        """The nearest of rows float32 [n, d] of lengths ``long`` [n]: ids [n, k] and cosines [n, k], the best first;
        NOTHING and -1 where there are fewer."""
        sketches = self._sketch(rows, long)
        ranked = max(k * _RANKED_EACH, min(_RANKED, self._compiled.expansion_search))
        wanted = min(k, len(self))
        if not wanted:
            return np.full((len(rows), k), NOTHING, np.int64), np.full((len(rows), k), -1, np.float32)
        while True:
            ranked = min(ranked, len(self._compiled))
            keys, _, counts, _, _ = self._compiled.search_many(sketches, ranked, threads=1)
            places: NDArray[np.int64] = keys.view(np.int64)
            whole = counts.min() == ranked
            if not whole:
                # What lies behind the last one found was never written to.
                places[np.arange(ranked) >= counts[:, None]] = 0
            ids = self._shelf.ids.take(places)
            if not whole:
                ids[np.arange(ranked) >= counts[:, None]] = NOTHING
            whole = whole and not self.graves
            if whole or ranked == len(self._compiled) or (ids != NOTHING).sum(axis=1).min() >= wanted:
                cosines = self._cosines(rows, long, places)
                if not whole:
                    cosines[ids == NOTHING] = _NOWHERE
                return _best(ids, cosines, k)
            ranked *= _LONGER

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        """Which of ``ids`` are there, and their rows."""
        places = self._places.find(ids)
        there = places != NOTHING
        return ids[there], self._shelf.codes[places[there]]

    def dump(self) -> dict[str, NDArray[np.generic]]:
        """All of it as parts of a snapshot: it is in memory twice until they are dropped."""
        shelf, sketch = self._shelf, self._sketch
        return {
            "graph": np.frombuffer(self._compiled.save_index_to_buffer(), np.uint8),
            "ids": shelf.ids[: shelf.n].copy(),
            "codes": shelf.codes[: shelf.n].copy(),
            **{name: getattr(sketch, name) for name in sketch.__struct_fields__},
        }

    def load(self, snapshot: Snapshot, prefix: str) -> None:
        """In place of what is there. Raises SnapshotBroken; only ever called with a snapshot that is proven to be one,
        as usearch reads wild memory from others."""
        self._sketch = planes_of(snapshot, prefix, self._options.dims)
        ids, codes = snapshot[f"{prefix}ids"], snapshot[f"{prefix}codes"]
        try:
            self._compiled.load_index_from_buffer(snapshot[f"{prefix}graph"])
            checked_codes(np.arange(len(ids)), codes, self._options.dims, self._options.storage)
        except (RuntimeError, ValueError) as error:
            raise SnapshotBroken(f"the graph of this snapshot can not be read: {error}") from error
        live = ids[ids != NOTHING]
        if self._compiled.ndim != BITS or len(ids) != len(self._compiled) or len(np.unique(live)) != len(live):
            raise SnapshotBroken(f"this snapshot has {len(self._compiled)} nodes for {len(ids)} rows, or ids twice")
        self._compiled.expansion_add = self._options.expansion_add
        places = self._shelf.append(codes)
        self._shelf.ids[places] = ids
        self._places.put(live, places[ids != NOTHING])
        graves = places[ids == NOTHING]
        self.graves = len(graves)
        self._graves = {hash(self._shelf.codes[place].tobytes()): place for place in graves.tolist()}
        self.widen()

    def _name(self, ids: Ids, places: NDArray[np.int64]) -> None:
        self._shelf.ids[places] = ids
        self._places.put(ids, places)
        self.graves -= len(ids)

    def _unearthed(self, one: int, row: Codes) -> bool:
        """Whether a grave holds the very same row, and now stands for it again."""
        grave = self._graves.get(hash(row.tobytes()))
        if grave is None or not np.array_equal(self._shelf.codes[grave], row):
            return False
        del self._graves[hash(row.tobytes())]
        self._name(np.array([one]), np.array([grave]))
        return True

    def _cosines(self, rows: Rows, long: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of rows [n, d] with those at ``places`` [n, m] each, float32 [n, m]."""
        wide = self._shelf.codes.take(places, axis=0).astype(np.float32)
        cosines: NDArray[np.float32] = np.matvec(wide, rows)
        cosines *= self._shelf.inverse.take(places)
        cosines /= long[:, None]
        return cosines


def _best(ids: Ids, cosines: NDArray[np.float32], k: int) -> tuple[Ids, NDArray[np.float32]]:
    """The ``k`` best of each row [n, m], as ``Graph.near`` gives them."""
    order = cosines.argmax(axis=1)[:, None] if k == 1 else (-cosines).argsort(axis=1, kind="stable")[:, :k]
    if len(ids) > 1:
        # Places in the arrays as one line: take_along_axis takes ten times as long for a few rows.
        order += np.arange(0, ids.size, ids.shape[1])[:, None]
    ids, cosines = ids.take(order), cosines.take(order)
    if ids.shape[1] < k:
        missing = ((0, 0), (0, k - ids.shape[1]))
        ids, cosines = np.pad(ids, missing, constant_values=NOTHING), np.pad(cosines, missing, constant_values=-1)
    # Not clip, which costs ten times as much on so few numbers.
    np.minimum(cosines, 1, out=cosines)
    return ids, np.maximum(cosines, -1, out=cosines)


def _lines(nbytes: int) -> int:
    return -(-nbytes // _LINE_BYTES) * _LINE_BYTES


def _expansion(n: int) -> int:
    """ef for so many rows. Of 100,000, 32, 64 and 96 found 99.7, 99.8 and 99.9 % of the rows that a query is near to,
    and 94.6, 96.4 and 97.4 % where the nearest may be far, in 1, 1.4 and 1.8 of the time. Of
    a million, 134, as here, found 98.7 and 97.3 %, 96 98.2 and 96.3 %, 192 99.0 and 97.6 %."""
    doublings = max(0.0, math.log2(max(n, 1) / _NARROW_UP_TO))
    return round(_WIDTH * math.pow(_WIDER, doublings))


def _compiled(options: IndexOptions) -> Compiled:
    try:
        # What it is written in, and not its wrapper, which makes an object of each answer.
        from usearch.compiled import Index, MetricKind, ScalarKind
    except ImportError as error:
        raise ConfigError("an HNSW index needs usearch: pip install usearch") from error
    return Index(
        ndim=BITS,
        dtype=ScalarKind.B1,
        connectivity=options.connectivity,
        expansion_add=options.expansion_add,
        metric_kind=MetricKind.Hamming,
        # Places are its keys, and whose they are stands on the shelf.
        enable_key_lookups=False,
    )
