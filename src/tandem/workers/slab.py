"""Memory that a worker and its process both map: ids go down and rows come up in it, and are not copied on the way.

All blocks are the parent's to take and to give back. A child that dies leaves nothing behind in the books, and computes
into memory that its parent chose.
"""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.clock import Clock
from tandem.errors import MemoryExhausted
from tandem.memory import Pool, PoolOptions, PoolStatistics, StoreOptions
from tandem.memory.stores import SharedRegion, SharedStore, attach
from tandem.types import Output, TokenBatch
from tandem.workers.messages import Job

_ITEM_BYTES = 4

_Shapes: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
_Arrays: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


class Cargo(msgspec.Struct, frozen=True):
    """A batch in shared memory. ``rows`` is where the answer will be; ``held`` is to be kept until it is there.
    ``region``: the batch's own, where the slab had no room."""

    job: Job
    rows: NDArray[np.float32]
    held: tuple[NDArray[np.int32], ...]
    region: SharedRegion | None = None

    @property
    def files(self) -> tuple[int, ...]:
        """The descriptors that must go with the job."""
        return () if self.region is None else (self.region.fileno(),)


class Slab:
    """The parent's side: a pool over one region of shared memory, taken at start."""

    def __init__(self, nbytes: int, clock: Clock) -> None:
        """Raises MemoryExhausted when the system has less."""
        self._store = SharedStore(StoreOptions())
        self._pool = Pool(self._store, PoolOptions(budget_bytes=nbytes), clock)
        # Held for ever: a pool gives a region that is free from end to end back to the store when it is short.
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
        answered = batch.ids if batch.output is Output.TOKENS else batch.lengths
        shapes = (batch.ids.shape, (len(parts), len(batch.lengths)), (*answered.shape, width))
        region, (ids, table, rows) = self._room(batch.ids, shapes)
        if ids is not batch.ids:
            np.copyto(ids, batch.ids)
        np.stack(parts, out=table)
        start = (region or self.region).address
        job = Job(
            number=number,
            output=batch.output,
            n=len(batch.lengths),
            shape=(ids.shape[0], ids.shape[1]),
            rows_shape=rows.shape,
            ids=_address(ids) - start,
            table=_address(table) - start,
            rows=_address(rows) - start,
            placed=batch.places is not None,
            skipped=batch.skips is not None,
            own_bytes=region.nbytes if region else 0,
        )
        return Cargo(job, rows, (ids, table), region)

    def statistics(self) -> PoolStatistics:
        return self._pool.statistics()

    def close(self) -> None:
        """Rows that are out stay good; the memory goes when the last of them does."""
        self._pool.close()

    def _room(self, ids: NDArray[np.int32], shapes: _Shapes) -> tuple[SharedRegion | None, _Arrays]:
        """Arrays of these shapes for ids, table and rows, in the slab; else in a region that is returned with them."""
        try:
            rows = self._pool.array(shapes[2], np.float32)
            table = self._pool.array(shapes[1], np.int32)
            return None, (ids if self._holds(ids) else self._pool.array(shapes[0], np.int32), table, rows)
        except MemoryExhausted:
            # Token rows of long texts, or rows that callers keep.
            sizes = [-(-_ITEM_BYTES * prod(shape) // self._store.alignment) * self._store.alignment for shape in shapes]
            region = self._store.allocate(sum(sizes))
        self.spilled += 1
        return region, (
            np.ndarray(shapes[0], np.int32, region.buffer),
            np.ndarray(shapes[1], np.int32, region.buffer, sizes[0]),
            np.ndarray(shapes[2], np.float32, region.buffer, sizes[0] + sizes[1]),
        )

    def _holds(self, array: NDArray[Any]) -> bool:
        """Whether an array lies in the slab, as the child would read it."""
        if array.dtype != np.int32 or not array.flags.c_contiguous:
            return False
        return 0 <= _address(array) - self.region.address <= self.region.nbytes - array.nbytes


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


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
