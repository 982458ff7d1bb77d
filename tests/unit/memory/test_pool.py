from __future__ import annotations

import gc
import re

import numpy as np
import pytest

from tandem.clock import ManualClock
from tandem.errors import ConfigError, MemoryExhausted, MemoryFault
from tandem.memory import Block, Pool, PoolOptions, Region
from tandem.memory.base import StoreOptions
from tandem.memory.stores import HostRegion, HostStore

KIB = 1024


class Counted(HostStore):
    """Host memory that can be told to refuse, and says what it gave."""

    def __init__(self, refusals: int = 0) -> None:
        super().__init__(StoreOptions(populate=False))
        self.refusals = refusals
        self.freed: list[int] = []

    def free(self, region: Region) -> None:
        self.freed.append(region.nbytes)
        super().free(region)


class Mark:
    """A fence that passes when told."""

    def __init__(self) -> None:
        self.passed = False

    def done(self) -> bool:
        return self.passed


def pool_of(budget: int, reserve: int | None = None, region: int = 64 * KIB, store: HostStore | None = None) -> Pool:
    options = PoolOptions(budget_bytes=budget, reserve_bytes=reserve, region_bytes=region)
    return Pool(store or Counted(), options, ManualClock())


def test_a_block_is_as_large_as_asked_and_aligned() -> None:
    pool = pool_of(64 * KIB)
    for nbytes in (0, 1, 63, 64, 65, 1000, 5000):
        block = pool.take(nbytes)
        assert block.wanted == nbytes == len(block.view())
        assert nbytes <= block.nbytes <= max(64, nbytes + max(63, nbytes // 8))
        assert block.offset % 64 == 0
    pool.check()


def test_the_budget_is_taken_at_start_and_no_more() -> None:
    pool = pool_of(64 * KIB)
    assert pool.statistics().reserved_bytes == 64 * KIB
    blocks = [pool.take(8 * KIB) for _ in range(8)]
    with pytest.raises(MemoryExhausted) as caught:
        pool.take(1)
    for number in ("1 bytes", "65,536 of its budget of 65,536", "8 blocks", "largest free span has 0"):
        assert re.search(rf"\b{number}\b", str(caught.value))
    for block in blocks:
        pool.give(block)
    assert pool.take(64 * KIB).nbytes == 64 * KIB, "what came back in parts is whole again"
    assert pool.statistics().store_allocations == 1


def test_a_batch_of_blocks_is_all_or_nothing() -> None:
    pool = pool_of(64 * KIB)
    with pytest.raises(MemoryExhausted):
        pool.take_many([16 * KIB, 32 * KIB, 32 * KIB])
    assert pool.statistics().in_use_bytes == 0
    assert [block.wanted for block in pool.take_many([16 * KIB, 32 * KIB])] == [16 * KIB, 32 * KIB]
    pool.check()


def test_a_block_given_twice_or_to_another_pool_is_an_error() -> None:
    pool, other = pool_of(64 * KIB), pool_of(64 * KIB)
    block = pool.take(100)
    with pytest.raises(MemoryFault, match="another pool"):
        other.give(block)
    pool.give(block)
    with pytest.raises(MemoryFault, match="given back twice"):
        pool.give(block)
    again = pool.take(100)
    with pytest.raises(MemoryFault, match="given back twice"):
        pool.give(block)
    pool.give(again)
    pool.check()


def test_a_block_with_a_fence_is_used_again_when_the_device_has_passed_it() -> None:
    pool = pool_of(64 * KIB)
    fence = Mark()
    block = pool.take(64 * KIB)
    pool.give(block, fence)
    with pytest.raises(MemoryExhausted, match="65,536 of them until the device is done"):
        pool.take(1)
    assert pool.statistics().fenced_bytes == 64 * KIB
    pool.check()
    fence.passed = True
    assert pool.take(64 * KIB).offset == block.offset
    pool.check()


def test_fences_that_pass_out_of_order_hold_up_nobody() -> None:
    pool = pool_of(64 * KIB)
    slow, fast = Mark(), Mark()
    first, second = pool.take_many([32 * KIB, 32 * KIB])
    pool.give(first, slow)
    pool.give(second, fast)
    fast.passed = True
    assert pool.take(32 * KIB).offset == second.offset


def test_growth_keeps_the_budget_and_empty_regions_make_room() -> None:
    store = Counted()
    pool = pool_of(256 * KIB, reserve=0, region=64 * KIB, store=store)
    small = [pool.take(32 * KIB) for _ in range(6)]
    assert pool.statistics().reserved_bytes == 192 * KIB
    for block in small[:5]:
        pool.give(block)
    large = pool.take(160 * KIB)
    assert store.freed == [64 * KIB, 64 * KIB], "two regions were empty"
    stats = pool.statistics()
    assert (stats.reserved_bytes, stats.store_allocations, stats.store_frees) == (224 * KIB, 4, 2)
    pool.check()
    pool.give(large)
    pool.give(small[5])
    assert pool.trim() == 224 * KIB
    pool.check()


def test_a_request_over_the_budget_costs_no_region() -> None:
    store = Counted()
    pool = pool_of(64 * KIB, store=store)
    with pytest.raises(MemoryExhausted, match="largest free span has 65,536"):
        pool.take(65 * KIB)
    assert store.freed == []


def test_a_store_that_refuses_is_asked_again_after_a_trim() -> None:
    class Full(Counted):
        def allocate(self, nbytes: int) -> HostRegion:
            if self.refusals and nbytes > 64 * KIB:
                self.refusals -= 1
                raise MemoryExhausted("full")
            return super().allocate(nbytes)

    store = Full(refusals=1)
    pool = pool_of(1024 * KIB, reserve=64 * KIB, region=256 * KIB, store=store)
    assert pool.take(128 * KIB).nbytes == 128 * KIB
    assert store.freed == [64 * KIB]
    store.refusals = 9
    with pytest.raises(MemoryExhausted, match="131,072 of its budget of 1,048,576") as caught:
        pool.take(512 * KIB)
    assert str(caught.value.__cause__) == "full"
    pool.check()


@pytest.mark.parametrize(("budget", "reserve", "region"), [(0, None, 1), (100, 200, 1), (100, -1, 1), (100, 0, 0)])
def test_sizes_that_make_no_sense_are_refused(budget: int, reserve: int | None, region: int) -> None:
    with pytest.raises(ConfigError, match="can not be"):
        pool_of(budget, reserve, region)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(MemoryFault, match=r"^-3 bytes"):
        pool_of(KIB).take(-3)


def test_an_array_keeps_its_memory_until_its_last_view_is_gone() -> None:
    pool = pool_of(64 * KIB)
    array = pool.array((4, 16, 8), np.float32)
    assert array.dtype == np.float32
    array[:] = 7
    view = array.reshape(64, 8)[::2].T[5:7].view(np.int32)
    assert np.shares_memory(view, array)
    held = view.data
    del array
    assert pool.statistics().live == 1
    del view
    assert pool.statistics().live == 1
    assert held[0, 0] == np.float32(7).view(np.int32)
    del held
    assert pool.statistics().live == 0
    pool.check()


def test_an_array_that_the_collector_finds_comes_back() -> None:
    pool = pool_of(64 * KIB)
    knot: list[object] = [pool.array((8,), np.int32)]
    knot.append(knot)
    del knot
    gc.collect()
    assert pool.statistics().live == 0


def test_arrays_outlive_a_closed_pool() -> None:
    pool = pool_of(64 * KIB)
    array = pool.array((1000,), np.int64)
    array[:] = 3
    pool.close()
    with pytest.raises(MemoryFault, match="closed"):
        pool.take(1)
    del pool
    gc.collect()
    assert array.sum() == 3000


def test_a_closed_pool_gives_a_region_back_with_its_last_block() -> None:
    store = Counted()
    pool = pool_of(64 * KIB, store=store)
    block = pool.take(100)
    pool.close()
    assert store.freed == []
    pool.give(block)
    assert store.freed == [64 * KIB]
    pool.close()


def test_a_shape_that_is_none_takes_nothing() -> None:
    pool = pool_of(64 * KIB)
    with pytest.raises(ValueError, match="negative"):
        pool.array((-2, -2), np.int32)
    assert pool.statistics().live == 0
    assert pool.array((0, 384), np.float32).shape == (0, 384)


def test_a_finalizer_may_give_back_in_the_midst_of_a_call_and_no_more() -> None:
    class Meddling(Counted):
        """Runs something while the pool is at work, as the garbage collector may."""

        def __init__(self) -> None:
            super().__init__()
            self.pool: Pool | None = None
            self.block: Block | None = None

        def allocate(self, nbytes: int) -> HostRegion:
            if self.pool is not None and self.block is not None:
                with pytest.raises(MemoryFault, match="finalizer"):
                    self.pool.take(1)
                self.pool.give(self.block)
                self.pool = None
            return super().allocate(nbytes)

    store = Meddling()
    pool = pool_of(64 * KIB, reserve=32 * KIB, region=32 * KIB, store=store)
    store.block, store.pool = pool.take(32 * KIB), pool
    other = pool.take(32 * KIB)
    stats = pool.statistics()
    assert (stats.live, stats.in_use_bytes) == (1, 32 * KIB)
    pool.give(other)
    pool.check()


def test_statistics_tell_what_is_held_wanted_and_broken_up() -> None:
    pool = pool_of(64 * KIB)
    blocks = [pool.take(7 * KIB + 1) for _ in range(8)]
    stats = pool.statistics()
    assert stats.wanted_bytes == 8 * (7 * KIB + 1)
    assert stats.in_use_bytes == stats.high_water_bytes == 8 * 7680
    assert stats.internal_fragmentation == pytest.approx(1 - stats.wanted_bytes / stats.in_use_bytes)
    assert stats.external_fragmentation == 0
    for block in blocks[::2]:
        pool.give(block)
    stats = pool.statistics()
    free = 64 * KIB - 4 * 7680
    assert stats.external_fragmentation == pytest.approx(1 - max(7680, 64 * KIB - 8 * 7680) / free)
    assert (stats.live, stats.takes, stats.high_water_bytes) == (4, 8, 8 * 7680)


def test_the_time_of_a_take_is_the_clocks() -> None:
    class Ticking(ManualClock):
        def now(self) -> float:
            self.advance(0.25)
            return super().now()

    pool = Pool(Counted(), PoolOptions(budget_bytes=64 * KIB), Ticking())
    for _ in range(100):
        pool.give(pool.take(100))
    stats = pool.statistics()
    assert (stats.take_p50_s, stats.take_p99_s) == (0.25, 0.25)
    for _ in range(1024):
        pool.take_many([])
        for block in pool.take_many([64, 64]):
            pool.give(block)
    assert pool.statistics().take_p99_s == 0.125
