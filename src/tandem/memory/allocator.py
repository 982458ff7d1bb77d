"""The pool's core: plain and synchronous, no lock, no clock. ``Pool`` is its shell.

A small block that comes back is kept, ready, in its class: taking one is a pop from a list. A large one is merged with
its free neighbours at once. Small blocks are merged only when something is asked for that fits nowhere else; so neither
does a change of traffic leave the budget cut up for the traffic of yesterday. Rejected: keeping large blocks by class
too, as most pools do. On recorded traffic that needed a budget of 1.3 to 1.6 times the bytes that are live at the peak,
where this needs 1.03 to 1.09 (docs/memory.md).
"""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import chain

from tandem.errors import ConfigError, MemoryExhausted, MemoryFault
from tandem.memory.base import Block, Fence, PoolOptions, Region, Store
from tandem.memory.sizes import SMALL_BYTES, block_bytes
from tandem.memory.spans import FreeSpans


class Allocator:
    """Where each byte of a budget is: handed out, waiting for a fence, kept ready in a class, or free."""

    def __init__(self, store: Store, options: PoolOptions) -> None:
        """Takes the reserve. Raises ConfigError for sizes that make no sense, MemoryExhausted when it is not there."""
        align = store.alignment
        self.budget_bytes = options.budget_bytes // align * align
        reserve_bytes = self.budget_bytes if options.reserve_bytes is None else options.reserve_bytes
        if not 0 <= reserve_bytes <= options.budget_bytes or self.budget_bytes <= 0 or options.region_bytes <= 0:
            raise ConfigError(
                f"a memory pool of {options.budget_bytes:,} bytes that reserves {reserve_bytes:,} and grows by "
                f"{options.region_bytes:,} can not be"
            )
        self.store = store
        self.live: dict[int, Block] = {}
        self.ready: defaultdict[int, list[Block]] = defaultdict(list)
        self.fenced: deque[tuple[Fence, Block]] = deque()
        self.spans = FreeSpans()
        self.in_use_bytes = self.wanted_bytes = self.reserved_bytes = 0
        self.high_water_bytes = self.reserved_high_water_bytes = 0
        self.takes = self.misses = self.merges = self.store_allocations = self.store_frees = 0
        self._align = align
        self._region_bytes = options.region_bytes
        self._closed = False
        if reserve_bytes >= align:
            self._add_region(reserve_bytes // align * align)

    def take(self, nbytes: int) -> Block:
        """A block of at least ``nbytes`` >= 0. Raises MemoryExhausted."""
        if nbytes < 0 or self._closed:
            raise MemoryFault(f"{nbytes} bytes of a {'closed ' * self._closed}{self.store.name} pool were asked for")
        size = block_bytes(nbytes, self._align)
        if size > SMALL_BYTES:
            place = self.spans.carve_low(size) or self._find(size, nbytes)
        elif ready := self.ready.get(size):
            place = ready.pop()
        else:
            place = self.spans.carve_high(size) or self._find(size, nbytes)
        block = Block(place.region, place.offset, size, nbytes)
        self.live[id(block)] = block
        self.takes += 1
        self.wanted_bytes += nbytes
        self.in_use_bytes += size
        if self.in_use_bytes > self.high_water_bytes:
            self.high_water_bytes = self.in_use_bytes
        return block

    def give(self, block: Block, fence: Fence | None) -> None:
        """Take a block back. Raises MemoryFault when it is not out."""
        self.require_out(block)
        del self.live[id(block)]
        if fence is not None:
            self.fenced.append((fence, block))
            return
        self._keep(block)
        if self._closed:
            self.trim()

    def require_out(self, block: Block) -> None:
        """Raises MemoryFault when the block is not one that this pool has handed out and not had back."""
        if id(block) not in self.live:
            raise MemoryFault(
                f"a block of {block.nbytes:,} bytes at {block.offset:,} is not out of this {self.store.name} pool: "
                "it was given back twice, or belongs to another pool"
            )

    def trim(self) -> int:
        """Merge all that is free and give empty regions back to the store; returns their bytes."""
        self._pass_fences()
        self._merge()
        before = self.reserved_bytes
        for region in self.spans.remove_empty():
            self.store.free(region)
            self.store_frees += 1
            self.reserved_bytes -= region.nbytes
        return before - self.reserved_bytes

    def close(self) -> None:
        """Hand out nothing more, and give each region back once it is free."""
        self._closed = True
        self.trim()

    def free_spans(self) -> list[int]:
        """The sizes of the free spans as merging would leave them, in bytes."""
        merged = self.spans.with_free(chain.from_iterable(self.ready.values()))
        return [size for tract in merged for size in tract.sizes]

    def fenced_bytes(self) -> int:
        return sum(block.nbytes for _, block in self.fenced)

    def _keep(self, block: Block) -> None:
        self.in_use_bytes -= block.nbytes
        self.wanted_bytes -= block.wanted
        if block.nbytes > SMALL_BYTES:
            self.spans.release(block)
        else:
            self.ready[block.nbytes].append(block)

    def _find(self, size: int, wanted: int) -> Block:
        """A place of ``size`` bytes where none is ready and no span has them."""
        self.misses += 1
        for make_room in (self._pass_fences, self._merge):
            make_room()
            if place := self._carve(size):
                return place
        self._grow(size, wanted)
        place = self._carve(size)
        assert place is not None, "a region is never smaller than what it was added for"
        return place

    def _carve(self, size: int) -> Block | None:
        return self.spans.carve_low(size) if size > SMALL_BYTES else self.spans.carve_high(size)

    def _pass_fences(self) -> None:
        for _ in range(len(self.fenced)):
            fence, block = self.fenced[0]
            passed = fence.done()
            self.fenced.popleft()
            if passed:
                self._keep(block)
            else:
                self.fenced.append((fence, block))

    def _merge(self) -> None:
        if any(self.ready.values()):
            self.merges += 1
            for block in chain.from_iterable(self.ready.values()):
                self.spans.release(block)
            self.ready.clear()

    def _grow(self, size: int, wanted: int) -> None:
        """Add a region that holds ``size``; where budget or system refuse, give empty ones back and try again."""
        room = self.budget_bytes - self.reserved_bytes
        if room < size:
            if room + self.spans.empty_bytes() < size:
                raise _exhausted(self, wanted)
            self.trim()
            room = self.budget_bytes - self.reserved_bytes
        try:
            self._add_region(min(max(size, self._region_bytes // self._align * self._align), room))
        except MemoryExhausted as refusal:
            self.trim()
            try:
                self._add_region(size)
            except MemoryExhausted:
                raise _exhausted(self, wanted) from refusal

    def _add_region(self, nbytes: int) -> Region:
        region = self.store.allocate(nbytes)
        self.store_allocations += 1
        self.reserved_bytes += region.nbytes
        self.reserved_high_water_bytes = max(self.reserved_high_water_bytes, self.reserved_bytes)
        self.spans.add(region)
        return region


def _exhausted(books: Allocator, wanted: int) -> MemoryExhausted:
    waiting = f", {books.fenced_bytes():,} of them until the device is done" if books.fenced else ""
    return MemoryExhausted(
        f"the {books.store.name} pool has no {wanted:,} bytes: {books.in_use_bytes:,} of its budget of "
        f"{books.budget_bytes:,} are in use by {len(books.live) + len(books.fenced)} blocks{waiting}; the largest "
        f"free span has {max(books.free_spans(), default=0):,}"
    )
