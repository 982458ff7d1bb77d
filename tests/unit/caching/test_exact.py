"""The exact tiers as one: what is on its way into memory answers, and what was cleared does not."""

from __future__ import annotations

from collections.abc import Sequence

from tandem.caching.aliases import Aliases
from tandem.caching.base import Entry, Key
from tandem.caching.exact import ExactCache
from tandem.caching.l1 import L1Cache, L1Options
from tandem.clock import SystemClock
from tests.cached_engines import Shelf
from tests.entry_rows import DIMS, entries, keys, right


def exact(shelf: Shelf) -> ExactCache:
    clock = SystemClock()
    return ExactCache(L1Cache(L1Options(budget_bytes=1 << 20), DIMS, clock), Aliases(100), shelf, clock)


def small(known: Sequence[Key]) -> list[Entry]:
    return [Entry(entry.row, 7, entry.tier) for entry in entries(known)]


def rows_of(found: Sequence[Entry | None]) -> list[list[float] | None]:
    return [None if entry is None else entry.row.tolist() for entry in found]


async def test_rows_that_were_found_answer_at_once_and_are_kept() -> None:
    shelf, known = Shelf(), keys(5)
    shelf.held.update(zip(known, small(known), strict=True))
    cache = exact(shelf)
    wanted = rows_of(await cache.later(known, ""))
    assert len(cache.l1) == 0, "not yet: that is off the path"
    assert rows_of(cache.now(known)) == wanted
    assert rows_of([cache.one(key) for key in known]) == wanted
    await cache.close()
    assert len(cache.l1) == 5
    assert rows_of(cache.now(known)) == wanted
    assert len(shelf.held) == 5


async def test_what_is_found_while_all_is_cleared_is_cleared_too() -> None:
    known = keys(5)

    class Slow(Shelf):
        async def clear(self) -> str:
            await cache.later(known, "")
            return await super().clear()

    shelf = Slow()
    shelf.held.update(zip(known, small(known), strict=True))
    cache = exact(shelf)
    await cache.clear()
    assert not any(cache.now(known))
    await cache.close()
    assert not any(right(known, cache.now(known)))
    assert shelf.held == {}
