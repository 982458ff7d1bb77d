"""The L1 cache, as its callers see it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tandem.caching.base import Entry, Key
from tandem.caching.l1 import L1Cache, L1Options, entry_bytes, least_bytes, slots_of
from tandem.clock import ManualClock
from tandem.errors import ConfigError
from tandem.quantization import ROW_CODECS
from tandem.types import Tier

DIMS = 16
MIB = 1 << 20


class WildClock:
    """Its calendar jumps as it likes; the monotonic reading is set by hand, backwards too."""

    def __init__(self) -> None:
        self.now_s, self.wall_s = 100.0, 1e9

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.wall_s


def keys_of(count: int, seed: int = 0) -> list[Key]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(16) for _ in range(count)]


def entry(value: float, tokens: int = 5, dims: int = DIMS, tier: Tier = Tier.FP32) -> Entry:
    return Entry(np.full(dims, value, np.float32), tokens, tier)


def options_for(slots: int, codec: str = "float32", ttl_s: float = 0.0, tenant_share: float = 1.0) -> L1Options:
    """The smallest budget that holds so many rows."""
    low, high = 0, 1 << 30
    while low + 1 < high:
        budget = (low + high) // 2
        options = L1Options(budget_bytes=budget, codec=codec, ttl_s=ttl_s, tenant_share=tenant_share)
        try:
            enough = slots_of(options, DIMS) >= slots
        except ConfigError:
            enough = False
        low, high = (low, budget) if enough else (budget, high)
    return L1Options(budget_bytes=high, codec=codec, ttl_s=ttl_s, tenant_share=tenant_share)


def cache_of(slots: int, codec: str = "float32", ttl_s: float = 0.0, tenant_share: float = 1.0) -> L1Cache:
    cache = L1Cache(options_for(slots, codec, ttl_s, tenant_share), DIMS, ManualClock())
    assert cache.slots == slots
    return cache


def values(found: Sequence[Entry | None]) -> list[float | None]:
    return [None if one is None else float(one.row[0]) for one in found]


def batches(count: int, size: int) -> Iterator[list[Key]]:
    keys = keys_of(count, seed=1)
    for start in range(0, count, size):
        yield keys[start : start + size]


@pytest.mark.parametrize("codec", list(ROW_CODECS))
def test_what_was_put_is_got(codec: str) -> None:
    cache = cache_of(100, codec)
    keys = keys_of(3)
    cache.put(keys[:2], [entry(1.0, 7), entry(2.0, 8, tier=Tier.BF16)])
    assert cache.get(keys[2]) is None
    for key, value, tokens, tier in ((keys[0], 1.0, 7, Tier.FP32), (keys[1], 2.0, 8, Tier.BF16)):
        for found in (cache.get(key), cache.get_many([keys[2], key])[1]):
            assert found is not None
            assert (found.tokens, found.tier) == (tokens, tier)
            np.testing.assert_allclose(found.row, np.full(DIMS, value))
            assert found.row.dtype == np.float32
    cache.check()


def test_many_come_in_the_order_of_their_keys() -> None:
    cache = cache_of(100)
    keys = keys_of(6)
    cache.put(keys[:4], [entry(number) for number in range(4)])
    asked = [keys[3], keys[5], keys[0], keys[3], keys[4]]
    assert values(cache.get_many(asked)) == [3.0, None, 0.0, 3.0, None]
    assert cache.get_many([]) == []
    assert cache.get_many(keys[4:]) == [None, None]
    cache.put([], [])
    assert len(cache) == 4


@pytest.mark.parametrize("codec", list(ROW_CODECS))
def test_a_row_stays_as_it_was_got(codec: str) -> None:
    cache = cache_of(2, codec)
    keys = keys_of(30)
    cache.put(keys[:2], [entry(1.0), entry(2.0)])
    alone, many = cache.get(keys[0]), cache.get_many(keys[:2])
    for number, key in enumerate(keys):
        cache.put([key], [entry(100.0 + number)])
    assert values([alone, *many]) == [1.0, 1.0, 2.0]
    assert alone is not None
    alone.row[:] = 7.0
    assert 7.0 not in values(cache.get_many(keys))


def test_a_second_put_replaces() -> None:
    cache = cache_of(10)
    (key,) = keys_of(1)
    cache.put([key, key], [entry(1.0), entry(2.0)])
    assert values([cache.get(key)]) == [2.0]
    cache.put([key], [entry(3.0, 9)])
    assert values([cache.get(key)]) == [3.0]
    assert len(cache) == 1


def test_keys_that_share_a_word_are_told_apart() -> None:
    cache = cache_of(64)
    words = [bytes([1] * 8), bytes([2] * 8), bytes(8)]
    keys = [low + high for low in words for high in words]
    cache.put(keys, [entry(number) for number in range(9)])
    assert values(cache.get_many(keys)) == list(range(9))
    assert cache.remove(keys[::2]) == 5
    assert values(cache.get_many(keys)) == [None, 1, None, 3, None, 5, None, 7, None]
    cache.check()


def test_a_full_cache_takes_more_and_stays_within_its_slots() -> None:
    cache = cache_of(50)
    for keys in batches(1000, 64):
        cache.put(keys, [entry(key[0]) for key in keys])
        assert len(cache) <= 50
        for key, found in zip(keys, cache.get_many(keys), strict=True):
            assert found is None or found.row[0] == key[0]
        cache.check()
    assert len(cache) == 50
    stats = cache.statistics()
    assert stats["evictions"] == 950
    assert stats["bytes"] <= stats["budget_bytes"]


def test_one_slot_is_a_cache() -> None:
    cache = cache_of(1)
    for number, key in enumerate(keys_of(40)):
        cache.put([key], [entry(number)])
        cache.get(key)
        assert len(cache) == 1
    cache.check()


def test_a_scan_leaves_what_is_used() -> None:
    cache = cache_of(100)
    favourites = keys_of(50)
    for _ in range(4):
        for key in favourites:
            if cache.get(key) is None:
                cache.put([key], [entry(1.0)])
    for keys in batches(1000, 10):
        cache.put(keys, [entry(2.0)] * len(keys))
    assert sum(found is not None for found in cache.get_many(favourites)) >= 45


@pytest.mark.parametrize("row", [np.ones(DIMS + 1), np.ones((1, DIMS)), np.ones(0)])
def test_a_row_of_another_width_is_refused_and_nothing_is_kept(row: np.ndarray) -> None:
    cache = cache_of(10)
    keys = keys_of(2)
    with pytest.raises(ValueError, match="16 numbers"):
        cache.put(keys, [entry(1.0), Entry(row.astype(np.float32), 1, Tier.FP32)])
    assert len(cache) == 0
    assert cache.get(keys[0]) is None


@pytest.mark.parametrize("codec", list(ROW_CODECS))
def test_a_broken_row_is_not_kept(codec: str) -> None:
    cache = cache_of(10, codec)
    keys = keys_of(3)
    cache.put(keys[:1], [entry(1.0)])
    for broken in (np.nan, np.inf):
        row = np.ones(DIMS, np.float32)
        row[3] = broken
        cache.put(keys, [Entry(row, 1, Tier.FP32), Entry(row, 1, Tier.FP32), entry(3.0)])
    assert values(cache.get_many(keys)) == [1.0, None, 3.0]
    assert cache.statistics()["rejected"] == 4
    cache.check()


def test_what_does_not_fit_together_is_refused() -> None:
    cache = cache_of(10)
    keys = keys_of(2)
    with pytest.raises(ValueError, match="2 keys for 1"):
        cache.put(keys, [entry(1.0)])
    with pytest.raises(ValueError, match="tokens"):
        cache.put(keys, [entry(1.0), entry(1.0, tokens=1 << 40)])
    assert len(cache) == 0


def test_removed_and_cleared_is_gone() -> None:
    cache = cache_of(10)
    keys = keys_of(10)
    cache.put(keys, [entry(number) for number in range(10)])
    assert cache.remove([keys[3], keys[3], b"x" * 16]) == 1
    assert values(cache.get_many(keys[2:5])) == [2.0, None, 4.0]
    held = cache.memory_bytes()
    cache.clear()
    assert len(cache) == 0
    assert values(cache.get_many(keys)) == [None] * 10
    assert cache.memory_bytes() < held
    cache.put(keys[:1], [entry(1.0)])
    assert values([cache.get(keys[0])]) == [1.0]
    cache.check()


def test_an_entry_ends_with_its_ttl() -> None:
    clock = ManualClock()
    cache = L1Cache(L1Options(budget_bytes=MIB, ttl_s=60.0), DIMS, clock)
    one, other = keys_of(2)
    cache.put([one], [entry(1.0)])
    clock.advance(59.0)
    cache.put([other], [entry(2.0)])
    assert values(cache.get_many([one, other])) == [1.0, 2.0], "a hit does not lengthen its life"
    clock.advance(1.0)
    assert values(cache.get_many([one, other])) == [None, 2.0]
    cache.put([one], [entry(3.0)])
    clock.advance(59.5)
    assert values([cache.get(one), cache.get(other)]) == [3.0, None]
    stats = cache.statistics()
    assert (stats["expired"], stats["entries"], stats["misses"]) == (2, 1, 2)
    cache.check()


def test_a_calendar_that_jumps_changes_nothing_and_a_clock_that_goes_back_serves_nothing() -> None:
    clock = WildClock()
    cache = L1Cache(L1Options(budget_bytes=MIB, ttl_s=60.0), DIMS, clock)
    (key,) = keys_of(1)
    cache.put([key], [entry(1.0)])
    for wall_s in (0.0, 4e9):
        clock.wall_s = wall_s
        assert cache.get(key) is not None
    clock.now_s -= 1000.0
    assert cache.get(key) is None
    cache.check()


def test_a_tenant_over_its_share_pays_itself() -> None:
    cache = cache_of(100, tenant_share=0.25)
    quiet = keys_of(20, seed=5)
    cache.put(quiet, [entry(1.0)] * 20, "quiet")
    for keys in batches(1000, 50):
        cache.put(keys, [entry(2.0)] * len(keys), "greedy")
        cache.check()
    assert values(cache.get_many(quiet)) == [1.0] * 20
    assert len(cache) == 45


def test_a_tenant_keeps_what_it_uses() -> None:
    cache = cache_of(100, tenant_share=0.2)
    used = keys_of(10, seed=5)
    cache.put(used, [entry(1.0)] * 10, "one")
    for keys in batches(200, 5):
        cache.get_many(used)
        cache.put(keys, [entry(2.0)] * 5, "one")
    assert values(cache.get_many(used)) == [1.0] * 10


def test_tenants_share_a_full_cache() -> None:
    cache = cache_of(40, tenant_share=0.5)
    for number, keys in enumerate(batches(3000, 7)):
        cache.put(keys, [entry(1.0)] * len(keys), f"tenant {number % 11}")
        cache.check()
    assert len(cache) == 40


def test_the_count_is_kept() -> None:
    cache = cache_of(10)
    keys = keys_of(3)
    cache.put(keys[:2], [entry(1.0, 11), entry(1.0, 13)])
    cache.get(keys[0])
    cache.get_many(keys)
    cache.clear()
    cache.get(keys[0])
    stats = cache.statistics()
    assert (stats["hits"], stats["misses"], stats["hit_tokens"]) == (3, 2, 35)
    assert (stats["entries"], stats["slots"], stats["budget_bytes"]) == (0, 10, cache.options.budget_bytes)


def test_a_borrowed_row_is_in_use_but_neither_hit_nor_miss() -> None:
    cache = cache_of(40)
    lent, *keys = keys_of(2000)
    cache.put([lent], [entry(3.0, 11)])
    assert cache.borrow(keys[0]) is None
    for key in keys:
        found = cache.borrow(lent)
        assert found is not None, "it stays, as it is in use"
        assert (found.row.tolist(), found.tokens) == ([3.0] * DIMS, 11)
        cache.put([key], [entry(1.0)])
    stats = cache.statistics()
    assert (stats["hits"], stats["misses"], stats["hit_tokens"]) == (0, 0, 0)
    cache.clear()
    assert cache.statistics()["hits"] == 0
    assert cache.borrow(lent) is None


def test_what_is_over_is_not_lent() -> None:
    clock, (key,) = ManualClock(), keys_of(1)
    cache = L1Cache(options_for(10, ttl_s=5.0), DIMS, clock)
    cache.put([key], [entry(1.0)])
    assert cache.borrow(key) is not None
    clock.advance(5.0)
    assert cache.borrow(key) is None


@pytest.mark.parametrize(
    "options",
    [
        L1Options(budget_bytes=0),
        L1Options(budget_bytes=20_000),
        L1Options(budget_bytes=MIB, ttl_s=-1),
        L1Options(budget_bytes=MIB, tenant_share=0),
        L1Options(budget_bytes=MIB, tenant_share=1.5),
        L1Options(budget_bytes=MIB, codec="int4"),
        # More than any address space.
        L1Options(budget_bytes=1 << 62),
    ],
)
def test_options_that_make_no_sense_are_refused(options: L1Options) -> None:
    with pytest.raises(ConfigError):
        L1Cache(options, DIMS, ManualClock())


@pytest.mark.parametrize("codec", list(ROW_CODECS))
@pytest.mark.parametrize("dims", [1, 384, 8192])
def test_the_least_budget_holds_one_row(codec: str, dims: int) -> None:
    least = least_bytes(L1Options(budget_bytes=0, codec=codec), dims)
    assert slots_of(L1Options(budget_bytes=least, codec=codec), dims) == 1
    with pytest.raises(ConfigError, match=f"{least:,}"):
        slots_of(L1Options(budget_bytes=least - 1, codec=codec), dims)


def test_smaller_codes_hold_more_entries() -> None:
    slots = {codec: slots_of(L1Options(budget_bytes=64 * MIB, codec=codec), 384) for codec in ROW_CODECS}
    assert slots["int16"] > 1.8 * slots["float32"]
    assert slots["int8"] > 3.3 * slots["float32"]
    assert entry_bytes(L1Options(budget_bytes=MIB, codec="int8"), 384) < 460


@pytest.mark.parametrize(
    "options",
    [
        L1Options(budget_bytes=256 << 10),
        L1Options(budget_bytes=2 * MIB, codec="int8"),
        L1Options(budget_bytes=4 * MIB, ttl_s=60.0, tenant_share=0.5),
    ],
    ids=lambda options: f"{options.budget_bytes}-{options.codec}-{options.ttl_s}",
)
def test_the_budget_is_what_is_held(options: L1Options) -> None:
    dims = 384
    row = np.random.default_rng(0).normal(size=dims).astype(np.float32)
    entries = [Entry(row, 5, Tier.FP32)] * 64
    # What is made once a process, imports and caches of numpy, is made before.
    L1Cache(options, dims, ManualClock()).put(keys_of(1), entries[:1])
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = L1Cache(options, dims, ManualClock())
        for number, keys in enumerate(batches(2 * cache.slots, 64)):
            cache.get_many(keys)
            cache.put(keys, entries[: len(keys)], f"tenant {number % 3}")
        del keys
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == cache.slots
    # All allocations of the process are traced, and threads that other tests have left make some of their own.
    assert 0.9 * options.budget_bytes < held <= options.budget_bytes + (16 << 10)
    assert 0.95 * options.budget_bytes < cache.memory_bytes() <= options.budget_bytes
