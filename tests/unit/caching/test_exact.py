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


async def test_a_row_on_its_way_is_found_by_every_key_that_leads_to_it() -> None:
    shelf, (found, computed, spelling, tokens) = Shelf(), keys(4)
    shelf.held[found] = small([found])[0]
    cache = exact(shelf)
    cache.aliases.put(spelling, found)
    cache.aliases.put(tokens, computed)
    wanted = rows_of([*await cache.later([found], ""), *small([computed])])
    cache.keep(computed, small([computed])[0], "")
    assert len(cache.l1) == 0
    assert rows_of(cache.now([spelling, tokens])) == wanted
    assert rows_of([cache.one(spelling), cache.one(tokens)]) == wanted
    await cache.close()
    assert rows_of(cache.now([spelling, tokens])) == wanted


async def test_a_row_on_its_way_is_found_though_its_key_once_led_elsewhere() -> None:
    cache, (known, gone) = exact(Shelf()), keys(2)
    cache.aliases.put(known, gone)
    cache.keep(known, small([known])[0], "")
    assert rows_of([cache.one(known), *cache.now([known, gone])]) == [*rows_of(small([known])) * 2, None]
    await cache.close()


async def test_what_is_borrowed_is_found_wherever_it_is_and_not_counted() -> None:
    cache, (known, spelling, unknown) = exact(Shelf()), keys(3)
    cache.aliases.put(spelling, known)
    (entry,) = small([known])
    cache.keep(known, entry, "")
    for held in (0, 1):
        assert len(cache.l1) == held
        assert rows_of([cache.borrow(key) for key in (known, spelling)]) == rows_of([entry, entry])
        assert cache.borrow(unknown) is None
        await cache.close()
    stats = cache.l1.statistics()
    assert (stats["hits"], stats["misses"], stats["hit_tokens"]) == (0, 0, 0)


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
