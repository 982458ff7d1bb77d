"""What a pool knows of itself: figures for people and metrics, and whether its books agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tandem.errors import MemoryFault
from tandem.memory.allocator import Allocator
from tandem.memory.base import PoolStatistics
from tandem.memory.sizes import SMALL_BYTES, block_bytes


def statistics(books: Allocator, take_times_s: Sequence[float]) -> PoolStatistics:
    """The pool at this moment; costs microseconds, as all free memory is looked through."""
    spans = books.free_spans()
    p50, p99 = np.quantile(take_times_s, (0.5, 0.99)).tolist() if take_times_s else (0.0, 0.0)
    return PoolStatistics(
        budget_bytes=books.budget_bytes,
        reserved_bytes=books.reserved_bytes,
        in_use_bytes=books.in_use_bytes,
        wanted_bytes=books.wanted_bytes,
        fenced_bytes=books.fenced_bytes(),
        high_water_bytes=books.high_water_bytes,
        reserved_high_water_bytes=books.reserved_high_water_bytes,
        internal_fragmentation=1 - books.wanted_bytes / books.in_use_bytes if books.in_use_bytes else 0.0,
        external_fragmentation=1 - max(spans) / sum(spans) if spans else 0.0,
        live=len(books.live),
        takes=books.takes,
        misses=books.misses,
        merges=books.merges,
        store_allocations=books.store_allocations,
        store_frees=books.store_frees,
        take_p50_s=p50,
        take_p99_s=p99,
    )


def check(books: Allocator) -> None:
    """Every byte of every region is in one place and one alone, and the sums agree. Raises MemoryFault."""
    held = [*books.live.values(), *(block for _, block in books.fenced)]
    pieces: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for block in held:
        _require(block.nbytes == block_bytes(block.wanted, books.store.alignment), "a block has another's size")
        pieces[id(block.region)].append((block.offset, block.offset + block.nbytes))
    for size, ready in books.ready.items():
        _require(all(block.nbytes == size <= SMALL_BYTES for block in ready), "a block is kept in another class")
        for block in ready:
            pieces[id(block.region)].append((block.offset, block.offset + block.nbytes))
    tracts = books.spans.tracts
    for key, tract in tracts.items():
        pieces[key] += [(start, start + size) for start, size in zip(tract.starts, tract.sizes, strict=True)]
        _require(all(size > 0 for size in tract.sizes), "a free span has no bytes")
    _require(pieces.keys() <= tracts.keys(), "a block lies in a region that was given back")
    for key, tract in tracts.items():
        end = 0
        for start, stop in sorted(pieces[key]):
            _require(start == end, f"{'an overlap' if start < end else 'a gap'} at byte {min(start, end):,}")
            _require(start % books.store.alignment == 0, f"byte {start:,} begins a block and is not aligned")
            end = stop
        _require(end == tract.region.nbytes, f"a gap at byte {end:,}")
    _require(books.in_use_bytes == sum(block.nbytes for block in held), "the bytes in use do not add up")
    _require(books.wanted_bytes == sum(block.wanted for block in held), "the wanted bytes do not add up")
    _require(books.reserved_bytes == sum(tract.region.nbytes for tract in books.spans), "the regions do not add up")
    _require(books.reserved_bytes <= books.budget_bytes, "the budget is exceeded")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise MemoryFault(f"the pool's books do not agree: {fault}")
