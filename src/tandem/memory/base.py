"""The contract of a store, which memory comes from, and the words that the pool and its callers share."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class Region(Protocol):
    """One stretch of a store's memory, zeroed or not as the store has it.

    ``buffer`` is its bytes, writable: a memoryview where the host can reach them, else a torch uint8 tensor.
    ``address``: where they begin, in the host's or the device's address space; a multiple of the store's alignment.
    """

    nbytes: int
    address: int
    buffer: Any


class Store(Protocol):
    """Memory of one kind. It is asked for few and large regions; a pool cuts them up.

    ``alignment``: of regions, and what a pool aligns blocks to, in bytes; a power of two. ``on_host``: whether a
    region's buffer is a memoryview.
    """

    name: str
    alignment: int
    on_host: bool

    def allocate(self, nbytes: int) -> Region:
        """A new region of ``nbytes`` > 0. Raises MemoryExhausted when the system refuses."""
        ...

    def free(self, region: Region) -> None:
        """Give a region back. Views of it that are still alive keep its memory, but nothing new may use it."""
        ...


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``device``: which one, for stores that lie on one. ``populate``: take the pages from the system at once, so that
    it refuses at start and not in the middle of a request, and no request pays for their first touch."""

    device: str = "cuda:0"
    populate: bool = True


# No cyclic garbage can hang on a block, so the collector need not visit the thousands of them.
class Block(msgspec.Struct, frozen=True, eq=False, gc=False):
    """``nbytes`` of a region from ``offset`` on, of which ``wanted`` were asked for. Each take makes a new one."""

    region: Region
    offset: int
    nbytes: int
    wanted: int

    def view(self) -> Any:
        """The wanted bytes: a memoryview or a torch uint8 tensor, as the region's buffer is. Not to be used once the
        block is given back; ``Pool.array`` is the way that can not go wrong."""
        return self.region.buffer[self.offset : self.offset + self.wanted]


class Fence(Protocol):
    """A mark in a device's queue of work; a CUDA event, behind one method."""

    def done(self) -> bool:
        """Whether the device has passed it. Must not block."""
        ...


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``budget_bytes``: never is more held. ``reserve_bytes`` of it are taken at start, in one region; None takes all.
    Beyond them the pool grows by regions of ``region_bytes``, or of what is asked where that is more."""

    budget_bytes: int
    reserve_bytes: int | None = None
    region_bytes: int = 32 << 20


class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at one moment. Shares are from 0 to 1.

    ``wanted_bytes`` were asked for by who holds a block now, ``in_use_bytes`` are held for them; blocks that wait for
    their fence count in both, and alone in ``fenced_bytes``. ``reserved_bytes`` are had from the store.
    ``internal_fragmentation``: of ``in_use_bytes``, the share that nobody asked for. ``external_fragmentation``: of the
    free bytes, the share outside the largest span that merging would yield; high is bad only for a large request.
    ``misses``: takes for which nothing was ready and no span large enough; ``merges``: times that small blocks, kept by
    class, were merged.
    ``take_p50_s`` and ``take_p99_s``: over the last 1,024 that were timed, one take in 17 and the mean of each batch of
    takes, without waiting for other threads.
    """

    budget_bytes: int
    reserved_bytes: int
    in_use_bytes: int
    wanted_bytes: int
    fenced_bytes: int
    high_water_bytes: int
    reserved_high_water_bytes: int
    internal_fragmentation: float
    external_fragmentation: float
    live: int
    takes: int
    misses: int
    merges: int
    store_allocations: int
    store_frees: int
    take_p50_s: float
    take_p99_s: float
