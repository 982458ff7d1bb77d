"""The free spans of a pool's regions: where blocks are cut from, and where they grow together again.

Best fit with full merging, which of the simple rules leaves the least fragmentation over real traces (Johnstone and
Wilson, "The memory fragmentation problem: solved?", 1998). Searches are linear: spans are few, and the pool comes here
only when it has no block of a class ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter

import msgspec

from tandem.memory.base import Block, Region


class Span(msgspec.Struct, frozen=True):
    """Free bytes ``start`` to ``stop`` of a region."""

    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


class FreeSpans:
    """Every region of a pool, with its free spans ascending; no two spans touch."""

    def __init__(self) -> None:
        self.by_region: dict[int, list[Span]] = {}
        self.regions: dict[int, Region] = {}

    def add(self, region: Region) -> None:
        """A new region, all of it free."""
        self.regions[id(region)] = region
        self.by_region[id(region)] = [Span(0, region.nbytes)]

    def remove_empty(self) -> list[Region]:
        """Forget the regions that are free from end to end, and return them."""
        empty = [region for key, region in self.regions.items() if self.by_region[key] == [Span(0, region.nbytes)]]
        for region in empty:
            del self.regions[id(region)], self.by_region[id(region)]
        return empty

    def carve(self, nbytes: int) -> Block | None:
        """Cut ``nbytes`` from the low end of the smallest span that has them; None when none has."""
        fits = (
            (span.nbytes, key, place)
            for key, spans in self.by_region.items()
            for place, span in enumerate(spans)
            if span.nbytes >= nbytes
        )
        # By size alone: of equals the first, in the oldest region, so that young regions may empty and go.
        found, key, place = min(fits, key=itemgetter(0), default=(0, 0, 0))
        if not found:
            return None
        span = self.by_region[key][place]
        self.by_region[key][place : place + 1] = [] if found == nbytes else [Span(span.start + nbytes, span.stop)]
        return Block(self.regions[key], span.start, nbytes, nbytes)

    def merge(self, blocks: Iterable[Block]) -> None:
        """Make free blocks spans again."""
        self.by_region = self.merged(blocks)

    def merged(self, blocks: Iterable[Block]) -> dict[int, list[Span]]:
        """The spans by ``id`` of their region as they would be with ``blocks`` merged in."""
        loose = {key: list(spans) for key, spans in self.by_region.items()}
        for block in blocks:
            loose[id(block.region)].append(Span(block.offset, block.offset + block.nbytes))
        return {key: list(_joined(spans)) for key, spans in loose.items()}


def _joined(spans: list[Span]) -> Iterator[Span]:
    start = stop = -1
    for span in sorted(spans, key=lambda span: span.start):
        if span.start == stop:
            stop = span.stop
            continue
        if stop > start:
            yield Span(start, stop)
        start, stop = span.start, span.stop
    if stop > start:
        yield Span(start, stop)
