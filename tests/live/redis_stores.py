"""A second level in a Redis that has trouble: how it is opened, filled and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tandem.caching.breaker import BreakerOptions
from tandem.caching.redis import RedisOptions, redis_store
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tests.entry_rows import entries, keys, records, right

SOON = BreakerOptions(first_s=0.01, most_s=0.05)
PATIENCE_S = 60.0


@asynccontextmanager
async def opened(url: str, timeout_s: float = 1.0, ttl_s: float | None = 1000.0) -> AsyncIterator[SecondLevel]:
    options = RedisOptions(url=url, timeout_s=timeout_s, ttl_s=ttl_s, breaker=SOON)
    store = redis_store(options, records(), SystemClock())
    try:
        yield store
    finally:
        await store.close()


async def until(store: SecondLevel, well: Callable[[str], bool]) -> str:
    """Go on asking until its state is as wanted; returns it."""
    async with asyncio.timeout(PATIENCE_S):
        while not well(store.state()):
            await store.get(keys(1, seed=99))
            await asyncio.sleep(0)
    return store.state()


async def filled(store: SecondLevel, known: Sequence[bytes]) -> None:
    while True:
        if all(right(known, await store.get(known))):
            return
        await asyncio.sleep(0)


async def fill(store: SecondLevel, n: int = 20) -> list[bytes]:
    known = keys(n)
    await store.put(known, entries(known))
    await store.flush()
    return known
