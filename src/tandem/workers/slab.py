"""Memory that a worker and its process both map: ids go down and rows come up in it, and are not copied on the way.

All blocks are the parent's to take and to give back. A child that dies leaves nothing behind in the books, and computes
into memory that its parent chose.
"""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.clock import Clock
from tandem.errors import MemoryExhausted
from tandem.memory import Pool, PoolOptions, PoolStatistics, StoreOptions
from tandem.memory.stores import SharedRegion, SharedStore, attach
from tandem.types import Output, TokenBatch
from tandem.workers.messages import Job

# Table, rows and ids are cut from one block; each begins on a cache line.
_WORD_BYTES = 4
_LINE_WORDS = 16


class Cargo(msgspec.Struct, frozen=True):
    """A batch in shared memory. ``rows`` is where the answer will be. ``held`` must be kept until it is there: the ids,
    and the batch's own file where the slab had no room."""

    job: Job
    rows: NDArray[np.float32]
    held: tuple[NDArray[np.int32], SharedRegion | None]

    @property
    def files(self) -> tuple[int, ...]:
        """The descriptors that must go with the job."""
        region = self.held[1]
        return () if region is None else (region.fileno(),)

    def sent(self) -> None:
        """The child has its own descriptors by now; ``files`` are closed."""
        region = self.held[1]
        if region is not None:
            region.close()


class Slab:
    """The parent's side: a pool over one region of shared memory, taken at start."""

    def __init__(self, nbytes: int, clock: Clock) -> None:
        """Raises MemoryExhausted when the system has less."""
        self._store = SharedStore(StoreOptions())
        self._pool = Pool(self._store, PoolOptions(budget_bytes=nbytes), clock)
        # Held for ever: the child has mapped this region, and no other.
        block = self._pool.take(0)
        assert isinstance(block.region, SharedRegion)
        self.region = block.region
        self.spilled = 0
        """Batches that had to have memory of their own."""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """An array for ids; an ordinary one where the slab has no room."""
        try:
            return self._pool.array(shape, np.int32)
        except MemoryExhausted:
            return np.empty(shape, np.int32)

    def load(self, number: int, batch: TokenBatch, width: int) -> Cargo:
        """Make room for a batch and for its rows, ``width`` wide, and copy into it what does not lie there already.

        Raises MemoryExhausted when the system has no memory left.
        """
        parts = [part for part in (batch.lengths, batch.places, batch.skips) if part is not None]
        n = len(batch.lengths)
        rows_shape = (*(batch.ids.shape if batch.output is Output.TOKENS else (n,)), width)
        at_rows = _lines(len(parts) * n)
        at_ids = at_rows + _lines(prod(rows_shape))
        region, ids = None, self._offset(batch.ids)
        try:
            block = self._pool.array((at_ids if ids is not None else at_ids + batch.ids.size,), np.int32)
            begin = _address(block) - self.region.address
        except MemoryExhausted:
            region, block = self._spill(at_ids + batch.ids.size)
            begin, ids = 0, None
        for row, part in enumerate(parts):
            block[row * n : row * n + n] = part
        if ids is None:
            ids = begin + at_ids * _WORD_BYTES
            block[at_ids:].reshape(batch.ids.shape)[:] = batch.ids
        rows = block[at_rows : at_rows + prod(rows_shape)].view(np.float32).reshape(rows_shape)
        job = Job(
            number=number,
            output=batch.output,
            n=n,
            shape=(batch.ids.shape[0], batch.ids.shape[1]),
            rows_shape=rows_shape,
            ids=ids,
            table=begin,
            rows=begin + at_rows * _WORD_BYTES,
            placed=batch.places is not None,
            skipped=batch.skips is not None,
            own_bytes=region.nbytes if region else 0,
        )
        return Cargo(job, rows, (batch.ids, region))

    def statistics(self) -> PoolStatistics:
        return self._pool.statistics()

    def check(self) -> None:
        """Raises MemoryFault when the pool's books disagree."""
        self._pool.check()

    def close(self) -> None:
        """Rows that are out stay good; the memory goes when the last of them does."""
        self._pool.close()

    def _offset(self, array: NDArray[Any]) -> int | None:
        """Where in the slab an array begins; None when it does not lie there as the child would read it."""
        if array.dtype != np.int32 or not array.flags.c_contiguous:
            return None
        offset = _address(array) - self.region.address
        return offset if 0 <= offset <= self.region.nbytes - array.nbytes else None

    def _spill(self, words: int) -> tuple[SharedRegion, NDArray[np.int32]]:
        """Memory for one batch alone: token rows of long texts are large, and callers may keep all rows there are.

        Rows that lie there hold one open file until nobody keeps them: CPython's mmap has a duplicate of its own, which
        can be done without from Python 3.13 on (``trackfd``)."""
        region = self._store.allocate(words * _WORD_BYTES)
        self.spilled += 1
        return region, np.ndarray((words,), np.int32, region.buffer)


class Reader:
    """The child's side."""

    def __init__(self, fd: int, nbytes: int) -> None:
        """``fd`` belongs to the reader from here on. Raises MemoryExhausted when it can not be mapped."""
        self._region = attach(fd, nbytes)

    def unload(self, job: Job, fd: int = -1) -> tuple[TokenBatch, NDArray[np.float32]]:
        """The batch, and the array that its rows are to be written to; ``fd`` came with the job, or -1."""
        buffer = (attach(fd, job.own_bytes) if job.own_bytes else self._region).buffer
        ids: NDArray[np.int32] = np.ndarray(job.shape, np.int32, buffer, job.ids)
        table: NDArray[np.int32] = np.ndarray((1 + job.placed + job.skipped, job.n), np.int32, buffer, job.table)
        rows: NDArray[np.float32] = np.ndarray(job.rows_shape, np.float32, buffer, job.rows)
        batch = TokenBatch(
            ids=ids,
            lengths=table[0],
            places=table[1] if job.placed else None,
            skips=table[-1] if job.skipped else None,
            output=job.output,
        )
        return batch, rows


def _lines(words: int) -> int:
    return -(-words // _LINE_WORDS) * _LINE_WORDS


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
