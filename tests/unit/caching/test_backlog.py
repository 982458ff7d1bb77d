"""Writing is off the path, bounded, and waits for nobody."""

from __future__ import annotations

import asyncio

import numpy as np

from tandem.caching.backlog import Backlog
from tandem.caching.base import Entry, Key
from tandem.types import Tier

ENTRY = Entry(row=np.zeros(2, np.float32), tokens=1, tier=Tier.FP32)


def keys(n: int) -> list[Key]:
    return [bytes((i,)) * 16 for i in range(n)]


class Slow:
    """Writes when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.batches: list[int] = []

    async def write(self, keys: list[Key], entries: list[Entry]) -> None:
        await self.may.wait()
        self.batches.append(len(keys))


async def test_all_is_written_in_batches() -> None:
    slow = Slow()
    slow.may.set()
    backlog = Backlog(slow.write, rows=100, batch_rows=4)
    backlog.add(keys(10), [ENTRY] * 10)
    await backlog.flushed()
    backlog.add(keys(1), [ENTRY])
    await backlog.flushed()
    assert slow.batches == [4, 4, 2, 1]
    assert backlog.dropped == 0


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    slow = Slow()
    backlog = Backlog(slow.write, rows=5, batch_rows=4)
    backlog.add(keys(8), [ENTRY] * 8)
    assert (len(backlog), backlog.dropped) == (5, 3)
    backlog.add(keys(2), [ENTRY] * 2)
    assert backlog.dropped == 5
    slow.may.set()
    await backlog.flushed()
    assert sum(slow.batches) == 5


async def test_closing_waits_no_longer_than_it_may() -> None:
    slow = Slow()
    backlog = Backlog(slow.write, rows=50, batch_rows=4)
    backlog.add(keys(8), [ENTRY] * 8)
    await backlog.close(timeout_s=0.0)
    assert slow.batches == []
    backlog.add(keys(2), [ENTRY] * 2)
    assert len(backlog) == 0
    await backlog.close(timeout_s=0.0)
    await backlog.flushed()
