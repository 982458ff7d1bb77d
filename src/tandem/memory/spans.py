"""The free spans of a pool's regions: where blocks are cut from, and where they grow together again at once.

First fit by address with immediate merging, one of the two rules that leave the least fragmentation over real
programs (Johnstone and Wilson, "The memory fragmentation problem: solved?", 1998), and here the better one; with small
blocks cut from the other end, where they do not stand in the way of large ones. Searches are linear: spans are a few
dozen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from tandem.memory.base import Block, Region


class Tract:
    """A region's free spans: ``starts`` ascending and ``sizes`` beside them, in bytes; no two spans touch."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.starts = [0]
        self.sizes = [region.nbytes]

    @property
    def empty(self) -> bool:
        """Whether nothing of the region is out or kept ready."""
        return self.sizes == [self.region.nbytes]

    def release(self, start: int, nbytes: int) -> None:
        """Add a span and join it with those that it touches."""
        starts, sizes = self.starts, self.sizes
        place = bisect_left(starts, start)
        if place and starts[place - 1] + sizes[place - 1] == start:
            place -= 1
            sizes[place] += nbytes
        else:
            starts.insert(place, start)
            sizes.insert(place, nbytes)
        after = place + 1
        if after < len(starts) and starts[place] + sizes[place] == starts[after]:
            sizes[place] += sizes[after]
            del starts[after], sizes[after]

    def copy(self) -> Tract:
        """The same spans, apart from these."""
        twin = Tract(self.region)
        twin.starts, twin.sizes = self.starts.copy(), self.sizes.copy()
        return twin


class FreeSpans:
    """Every region of a pool with its free spans, the oldest region first, so that the youngest empties first."""

    def __init__(self, tracts: Iterable[Tract] = ()) -> None:
        self.tracts = {id(tract.region): tract for tract in tracts}

    def __iter__(self) -> Iterator[Tract]:
        return iter(self.tracts.values())

    def add(self, region: Region) -> None:
        """A new region, all of it free."""
        self.tracts[id(region)] = Tract(region)

    def empty_bytes(self) -> int:
        """Of the regions that are free from end to end."""
        return sum(tract.region.nbytes for tract in self if tract.empty)

    def remove_empty(self) -> list[Region]:
        """Forget the regions that are free from end to end, and return them."""
        empty = [tract.region for tract in self if tract.empty]
        for region in empty:
            del self.tracts[id(region)]
        return empty

    def carve_low(self, nbytes: int) -> Block | None:
        """Cut ``nbytes`` from the low end of the first span that has them; None when none has."""
        for tract in self.tracts.values():
            sizes = tract.sizes
            for place, size in enumerate(sizes):
                if size >= nbytes:
                    start = tract.starts[place]
                    if size == nbytes:
                        del tract.starts[place], sizes[place]
                    else:
                        tract.starts[place] = start + nbytes
                        sizes[place] = size - nbytes
                    return Block(tract.region, start, nbytes, nbytes)
        return None

    def carve_high(self, nbytes: int) -> Block | None:
        """Cut ``nbytes`` from the high end of the last span of a region that has them; None when none has."""
        for tract in self.tracts.values():
            sizes = tract.sizes
            for place in range(len(sizes) - 1, -1, -1):
                left = sizes[place] - nbytes
                if left >= 0:
                    start = tract.starts[place] + left
                    if left:
                        sizes[place] = left
                    else:
                        del tract.starts[place], sizes[place]
                    return Block(tract.region, start, nbytes, nbytes)
        return None

    def release(self, block: Block) -> None:
        """Make a block free."""
        self.tracts[id(block.region)].release(block.offset, block.nbytes)

    def with_free(self, blocks: Iterable[Block]) -> FreeSpans:
        """A copy in which ``blocks`` are free too."""
        merged = FreeSpans(tract.copy() for tract in self)
        for block in blocks:
            merged.release(block)
        return merged
