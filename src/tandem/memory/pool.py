"""The pool: one budget of memory of one store, handed out in blocks that come back whole. For any number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import prod
from threading import RLock
from typing import Any, TypeVar
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from tandem.clock import Clock
from tandem.errors import MemoryFault, TandemError
from tandem.memory import audit
from tandem.memory.allocator import Allocator
from tandem.memory.base import Block, Fence, PoolOptions, PoolStatistics, Store

S = TypeVar("S", bound=np.generic)
T = TypeVar("T")

# One take in so many is timed, and each batch of takes as a whole: two readings of a clock cost a fifth of a take. A
# prime, as takes come in groups of a few: ids, lengths, places, rows. The last so many times are kept.
_TIMED_EVERY = 17
_TIMES_KEPT = 1024


class Pool:
    """Blocks and arrays of one store's memory, within one budget.

    ``give`` and the end of an array may come at any moment, also from a finalizer that the garbage collector runs in
    the midst of another call of the same thread: hence a lock that lets its owner in again, and ``_late``, which takes
    what comes then.
    """

    def __init__(self, store: Store, options: PoolOptions, clock: Clock) -> None:
        """Takes ``options.reserve_bytes`` from the store. Raises ConfigError for sizes that make no sense,
        MemoryExhausted when the store has less."""
        self.store = store
        self._books = Allocator(store, options)
        self._now = clock.now
        self._times: deque[float] = deque(maxlen=_TIMES_KEPT)
        self._lock = RLock()
        self._busy = False
        self._late: deque[tuple[Block, Fence | None]] = deque()
        self._leases: dict[int, _Lease] = {}
        self._ended = _on_end(self._leases, self._late)

    def take(self, nbytes: int) -> Block:
        """A block of ``nbytes`` >= 0, aligned as the store is; its content is undefined.

        Raises MemoryExhausted when the budget can not hold it.
        """
        with self._lock:
            self._enter()
            try:
                if self._late:
                    self._settle()
                if self._books.takes % _TIMED_EVERY:
                    return self._books.take(nbytes)
                started_s = self._now()
                block = self._books.take(nbytes)
                self._times.append(self._now() - started_s)
                return block
            finally:
                self._busy = False

    def take_many(self, sizes: Sequence[int]) -> list[Block]:
        """One block a size, or none at all: a batch that can not have its output has no use for its input.

        Raises MemoryExhausted.
        """
        return self._inside(lambda: self._take_many(sizes))

    def give(self, block: Block, fence: Fence | None = None) -> None:
        """Take a block back. With ``fence``, it is used again only when the device has passed that.

        Raises MemoryFault when the block is not out: it was given back before, or is another pool's.
        """
        with self._lock:
            if self._busy:
                self._books.require_out(block)
                self._late.append((block, fence))
                return
            self._busy = True
            try:
                self._books.give(block, fence)
            finally:
                self._busy = False

    def array(self, shape: tuple[int, ...], dtype: type[S]) -> NDArray[S]:
        """An array, its content undefined, whose memory goes back when nobody holds it or a view of it any more.

        Raises MemoryExhausted; MemoryFault where the store's memory is not the host's; ValueError for a shape that is
        none.
        """
        if not self.store.on_host:
            raise MemoryFault(f"{self.store.name} memory is not the host's: no array can lie in it")
        kind = np.dtype(dtype)
        block = self.take(kind.itemsize * prod(shape))
        # The buffer is no array, so views of this array, and views of them, name this one as their base.
        try:
            array: NDArray[S] = np.ndarray(shape, kind, block.region.buffer, block.offset)
        except ValueError:
            self.give(block)
            raise
        lease = _Lease(array, self._ended)
        lease.block = block
        self._leases[id(lease)] = lease
        return array

    def trim(self) -> int:
        """Give regions that are free from end to end back to the store; returns their bytes."""
        return self._inside(self._books.trim)

    def statistics(self) -> PoolStatistics:
        """The pool at this moment."""
        return self._inside(lambda: audit.statistics(self._books, self._times))

    def check(self) -> None:
        """Prove that no two blocks overlap, no byte is lost and all sums agree. Raises MemoryFault."""
        self._inside(lambda: audit.check(self._books))

    def close(self) -> None:
        """Hand out nothing more, and give each region back once it is free; what is out stays good. Idempotent."""
        self._inside(self._books.close)

    def _take_many(self, sizes: Sequence[int]) -> list[Block]:
        blocks: list[Block] = []
        started_s = self._now()
        try:
            blocks.extend(map(self._books.take, sizes))
        except TandemError:
            for block in blocks:
                self._books.give(block, None)
            raise
        if blocks:
            self._times.append((self._now() - started_s) / len(blocks))
        return blocks

    def _inside(self, call: Callable[[], T]) -> T:
        with self._lock:
            self._enter()
            try:
                self._settle()
                return call()
            finally:
                self._busy = False

    def _enter(self) -> None:
        if self._busy:
            raise MemoryFault("the pool was called from a finalizer, which may only give blocks back")
        self._busy = True

    def _settle(self) -> None:
        while self._late:
            self._books.give(*self._late.popleft())


class _Lease(ref[NDArray[Any]]):
    """Watches an array and holds the block that it lies in."""

    __slots__ = ("block",)

    block: Block


def _on_end(leases: dict[int, _Lease], late: deque[tuple[Block, Fence | None]]) -> Callable[[_Lease], None]:
    """What to do when a lease's array is gone. It takes no lock, as it may run anywhere, and does not hold the pool."""

    def ended(lease: _Lease) -> None:
        late.append((leases.pop(id(lease)).block, None))

    return ended
