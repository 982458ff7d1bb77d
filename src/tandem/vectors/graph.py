"""A graph of near neighbours (HNSW, Malkov and Yashunin, arXiv:1603.09320), by usearch.

What was found out about usearch 2.26, and what follows from it here:

- It takes codes as they are and compares int8 by cosine whatever their scale, so ours go in unchanged. Its own rounding
  of a unit row, ``x * 127``, would leave MiniLM's components four bits.
- A removed row's node is given to the next row that is added, and edges of others go on leading to it. After one
  turnover of 10,000 rows no search found 3.9 % of them, not by their own vector. So nothing is removed: its node gets
  the key of a grave, serves on as a stepping stone, and is left out of answers; 0.02 % were lost. Graves take memory,
  so the graph is built anew when there are many (``renewal.py``).
- The same text is often stored again when it has expired. Then its grave is opened again: else a hundred of them would
  lie around its vector, and a search would have to look behind them all.
- ``add`` raises for a key that is there: a row that is replaced is buried first.
- Adding with several threads can leave rows that no search finds (its issue 735), so one thread adds.
- Its own lock lets one call in at a time, so one of ours around two calls costs no parallelism.
- Writing to a path holds the interpreter's lock all the while (0.2 s for 20,000 rows); writing to memory does not.
- Importing it opens no connection; it downloads only for its SQLite extension, which nothing here asks for.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.vectors.base import Codes, Ids, IndexOptions, SnapshotBroken
from tandem.vectors.storage import TYPES

if TYPE_CHECKING:
    from usearch.compiled import Index as Compiled

# Keys from here on are graves'. An id is an int64, so it is less.
_GRAVES = 1 << 63
# Of usearch's own: a pointer to a node and one to its row, for each it has room for; and 16 bytes a key in a hash table
# of a power of two, at most half full.
_POINTER_BYTES, _LOOKUP_BYTES = 16, 16
# CPython's objects for a grave's hash and its key, beside the dict's own table.
_GRAVE_BYTES = 80
# ef up to so many rows, and how much wider it is with each doubling beyond.
_WIDTH, _NARROW_UP_TO, _WIDER = 64, 100_000, 1.25
# An answer that has too many graves in it is asked for again, so many times as long.
_LONGER = 4


class Graph:
    """Codes by id. ``graves`` are nodes that stand for no row any more. Not for several threads at once."""

    def __init__(self, options: IndexOptions) -> None:
        """Raises ConfigError when usearch is not installed."""
        self._options = options
        self._kind = TYPES[options.storage]
        self._compiled = _compiled(options)
        self._next_grave = _GRAVES
        self._graves: dict[int, int] = {}
        self.graves = 0
        self.widen()

    def __len__(self) -> int:
        return len(self._compiled) - self.graves

    @property
    def nbytes(self) -> int:
        """What it holds: nodes and edges, which usearch counts, and the tables around them."""
        nodes = len(self._compiled)
        slots = 1 << max(2 * nodes - 1, 1).bit_length()
        tables = self._compiled.capacity * _POINTER_BYTES + slots * _LOOKUP_BYTES
        books = sys.getsizeof(self._graves) + _GRAVE_BYTES * len(self._graves)
        return self._compiled.serialized_length + tables + books

    def ids(self) -> Ids:
        """All of them."""
        keys = self._compiled.get_keys_in_slice(0, len(self._compiled))
        return keys[keys < _GRAVES].astype(np.int64)

    def put(self, ids: Ids, codes: Codes) -> None:
        """Keep rows [n, d] under ids [n], each once."""
        self.bury(ids)
        if self._graves:
            new = np.array([not self._unearthed(one, row) for one, row in zip(ids.tolist(), codes, strict=True)], bool)
            ids, codes = ids[new], codes[new]
        self._compiled.add_many(ids.view(np.uint64), codes, threads=1)
        self.widen()

    def widen(self, expansion: int = 0) -> None:
        """Search with this ef; with 0, with the one of the options, or one for so many rows."""
        wanted = expansion or self._options.expansion_search or _expansion(len(self._compiled))
        if wanted != self._compiled.expansion_search:
            self._compiled.expansion_search = wanted

    def bury(self, ids: Ids) -> int:
        """Forget rows; how many were there."""
        keys = np.unique(ids).view(np.uint64)
        keys = keys[self._compiled.contains_many(keys)]
        for key, row in zip(keys.tolist(), self.rows(keys), strict=True):
            self._compiled.rename_one_to_one(key, self._next_grave)
            if row is not None:
                self._graves[hash(row.tobytes())] = self._next_grave
            self._next_grave += 1
        self.graves += len(keys)
        return len(keys)

    def near(self, code: Codes, k: int) -> tuple[Ids, Codes]:
        """The ``k`` nearest of a row [1, d], or all there are, by usearch's distance, and their codes."""
        wanted = k
        while True:
            wanted = min(wanted, len(self._compiled))
            keys, _, counts, _, _ = self._compiled.search_many(code, wanted, threads=1)
            found = keys[0, : counts[0]]
            if self.graves:
                found = found[found < _GRAVES][:k]
            if len(found) == k or wanted == len(self._compiled) or len(found) == len(self):
                # All are there, and none is None: nobody else has been in between.
                held = cast("tuple[Codes, ...]", self._compiled.get_many(found, self._compiled.dtype))
                rows: Codes = np.concatenate(held, axis=None)
                return found.view(np.int64), rows.view(self._kind).reshape(len(found), -1)
            wanted *= _LONGER

    def rows(self, keys: NDArray[np.uint64]) -> list[Codes | None]:
        """Each row [d], None for a key that is not there."""
        found = self._compiled.get_many(keys, self._compiled.dtype)
        return [None if row is None else row.reshape(-1).view(self._kind) for row in found]

    def dump(self) -> NDArray[np.uint8]:
        """All of it as bytes: it is in memory twice until they are dropped."""
        return np.frombuffer(self._compiled.save_index_to_buffer(), np.uint8)

    def load(self, dump: NDArray[np.uint8]) -> None:
        """In place of what is there. Raises SnapshotBroken; only ever called with bytes that are proven to be those of
        ``dump``, as usearch reads wild memory from others."""
        options, compiled = self._options, self._compiled
        expected = (compiled.ndim, compiled.dtype)
        try:
            compiled.load_index_from_buffer(dump)
        except (RuntimeError, ValueError) as error:
            raise SnapshotBroken(f"usearch can not read the graph of this snapshot: {error}") from error
        if (compiled.ndim, compiled.dtype) != expected:
            raise SnapshotBroken(f"the graph of this snapshot has rows {compiled.dtype} [{compiled.ndim}]")
        compiled.expansion_add = options.expansion_add
        self.widen()
        keys = compiled.get_keys_in_slice(0, len(compiled))
        graves = keys[keys >= _GRAVES]
        self.graves = len(graves)
        self._next_grave = max([_GRAVES, *(graves + np.uint64(1)).tolist()])
        self._graves = {
            hash(row.tobytes()): key
            for key, row in zip(graves.tolist(), self.rows(graves), strict=True)
            if row is not None
        }

    def _unearthed(self, one: int, row: Codes) -> bool:
        """Whether a grave holds the very same row, and now stands for it again."""
        grave = self._graves.get(hash(row.tobytes()))
        if grave is None:
            return False
        (held,) = self.rows(np.array([grave], np.uint64))
        if held is None or not np.array_equal(held, row):
            return False
        del self._graves[hash(row.tobytes())]
        self._compiled.rename_one_to_one(grave, one)
        self.graves -= 1
        return True


def _expansion(n: int) -> int:
    """ef for so many rows. Of 300,000, 64 found 99.1 % of the rows that a query is near to, and 91, as here, 99.8 %."""
    doublings = max(0.0, math.log2(max(n, 1) / _NARROW_UP_TO))
    return round(_WIDTH * math.pow(_WIDER, doublings))


def _compiled(options: IndexOptions) -> Compiled:
    try:
        # What it is written in, and not its wrapper, which makes an object of each answer.
        from usearch.compiled import Index, MetricKind, ScalarKind
    except ImportError as error:
        raise ConfigError("an HNSW index needs usearch: pip install usearch") from error
    kinds = {"int8": ScalarKind.I8, "float16": ScalarKind.F16, "float32": ScalarKind.F32}
    return Index(
        ndim=options.dims,
        dtype=kinds[options.storage],
        connectivity=options.connectivity,
        expansion_add=options.expansion_add,
        metric_kind=MetricKind.Cos,
    )
