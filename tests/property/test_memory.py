"""The pool, whatever is asked of it: no two live blocks overlap, nothing leaks, the budget holds; under threads too."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Barrier, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from tandem.clock import ManualClock, SystemClock
from tandem.errors import MemoryExhausted, MemoryFault
from tandem.memory import Block, Pool, PoolOptions, StoreOptions
from tandem.memory.sizes import block_bytes
from tandem.memory.stores import HostStore

KIB = 1024
BUDGET = 64 * KIB
sizes = st.one_of(st.integers(0, 300), st.integers(0, 20 * KIB), st.sampled_from([8 * KIB, 32 * KIB, BUDGET]))


class Mark:
    def __init__(self) -> None:
        self.passed = False

    def done(self) -> bool:
        return self.passed


def pool_of(reserve: int | None, region: int) -> Pool:
    options = PoolOptions(budget_bytes=BUDGET, reserve_bytes=reserve, region_bytes=region)
    return Pool(HostStore(StoreOptions(populate=False)), options, ManualClock())


class PoolMachine(RuleBasedStateMachine):
    """Every live block and array is filled with a number of its own: an overlap would show in another's bytes."""

    @initialize(reserve=st.sampled_from([None, 0, 16 * KIB]), region=st.sampled_from([1, 4 * KIB, 24 * KIB]))
    def begin(self, reserve: int | None, region: int) -> None:
        self.pool = pool_of(reserve, region)
        self.blocks: list[tuple[int, Block]] = []
        self.arrays: list[tuple[int, NDArray[np.uint8]]] = []
        self.waiting: list[tuple[int, Block, Mark]] = []
        self.number = 0

    def mark(self, bytes_: memoryview | NDArray[np.uint8]) -> int:
        self.number = (self.number + 1) % 256
        np.frombuffer(bytes_, np.uint8)[:] = self.number
        return self.number

    def hold(self, block: Block) -> None:
        self.blocks.append((self.mark(block.view()), block))

    @rule(nbytes=sizes)
    def take(self, nbytes: int) -> None:
        try:
            self.hold(self.pool.take(nbytes))
        except MemoryExhausted:
            self.refused([nbytes])

    @rule(many=st.lists(sizes, max_size=5))
    def take_many(self, many: list[int]) -> None:
        before = self.pool.statistics().live
        try:
            for block in self.pool.take_many(many):
                self.hold(block)
        except MemoryExhausted:
            self.refused(many)
            assert self.pool.statistics().live == before

    def refused(self, many: list[int]) -> None:
        """A refusal is just when what is free, merged, has no room; with one region that is exact."""
        stats = self.pool.statistics()
        free = stats.budget_bytes - stats.in_use_bytes
        if not self.blocks and not self.arrays and not self.waiting:
            assert sum(block_bytes(nbytes, 64) for nbytes in many) > free

    @rule(nbytes=sizes)
    def array(self, nbytes: int) -> None:
        try:
            array = self.pool.array((nbytes,), np.uint8)
        except MemoryExhausted:
            self.refused([nbytes])
        else:
            self.arrays.append((self.mark(array), array[nbytes // 2 :]))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), fence=st.booleans())
    def give(self, data: st.DataObject, fence: bool) -> None:
        number, block = self.blocks.pop(data.draw(st.integers(0, len(self.blocks) - 1)))
        mark = Mark() if fence else None
        self.pool.give(block, mark)
        if mark is not None:
            self.waiting.append((number, block, mark))
        with pytest.raises(MemoryFault):
            self.pool.give(block)

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.arrays.pop(data.draw(st.integers(0, len(self.arrays) - 1)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def pass_fence(self, data: st.DataObject) -> None:
        self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))[2].passed = True

    @rule()
    def trim(self) -> None:
        before = self.pool.statistics().reserved_bytes
        assert self.pool.trim() == before - self.pool.statistics().reserved_bytes

    @invariant()
    def every_byte_is_its_holders(self) -> None:
        for number, block in self.blocks:
            assert set(block.view()) <= {number}
        for number, array in self.arrays:
            assert set(array.tolist()) <= {number}
        # What the device may still write or read is nobody else's yet.
        for number, block, _ in self.waiting:
            assert set(block.view()) <= {number}

    @invariant()
    def the_books_agree(self) -> None:
        self.pool.check()
        stats = self.pool.statistics()
        held = sum(block.wanted for _, block in self.blocks)
        assert stats.live == len(self.blocks) + len(self.arrays)
        assert held <= stats.wanted_bytes <= stats.in_use_bytes <= stats.reserved_bytes <= BUDGET
        assert stats.in_use_bytes <= stats.high_water_bytes <= BUDGET

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for _, block in self.blocks:
            self.pool.give(block)
        self.arrays.clear()
        for _, _, mark in self.waiting:
            mark.passed = True
        assert self.pool.trim() >= 0
        assert self.pool.statistics().reserved_bytes == 0, "something leaked"
        self.pool.close()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.integers(0, 1 << 40), st.sampled_from([64, 512]))
def test_a_block_is_at_most_an_eighth_too_large_and_holds_itself(nbytes: int, alignment: int) -> None:
    size = block_bytes(nbytes, alignment)
    assert size >= max(nbytes, 1)
    assert size % alignment == 0
    assert size - nbytes < max(nbytes / 8, alignment) or nbytes == 0
    assert block_bytes(size, alignment) == size
    assert block_bytes(nbytes + 1, alignment) >= size


def test_threads_share_a_pool() -> None:
    pool = Pool(
        HostStore(StoreOptions()),
        PoolOptions(budget_bytes=1 << 20, reserve_bytes=0, region_bytes=1 << 18),
        SystemClock(),
    )
    together, faults = Barrier(5), []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: deque[tuple[int, Block]] = deque()
        arrays: deque[NDArray[np.uint8]] = deque(maxlen=3)
        together.wait()
        for step in range(1500):
            number = (seed * 50 + step) % 256
            try:
                block = pool.take(int(rng.integers(1, 12 * KIB)))
                block.view()[:] = bytes([number]) * block.wanted
                held.append((number, block))
                array = pool.array((int(rng.integers(1, 4 * KIB)),), np.uint8)
                array[:] = number
                arrays.append(array)
            except MemoryExhausted:
                number = -1
            while held and (len(held) > 12 or number < 0):
                number, block = held.popleft()
                if bytes(block.view()) != bytes([number]) * block.wanted:
                    faults.append(f"bytes of thread {seed} were overwritten")
                pool.give(block)
            if any(array.min() != array.max() for array in arrays):
                faults.append(f"an array of thread {seed} was overwritten")
        for _, block in held:
            pool.give(block)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    together.wait()
    while any(thread.is_alive() for thread in threads):
        pool.check()
        assert pool.statistics().reserved_bytes <= 1 << 20
        pool.trim()
    for thread in threads:
        thread.join()
    assert faults == []
    pool.check()
    stats = pool.statistics()
    assert (stats.live, stats.in_use_bytes) == (0, 0)
    assert pool.trim() == stats.reserved_bytes


def batches(requests: int, seed: int) -> Iterator[list[int]]:
    """The sizes, in bytes, of the ids, lengths, places and rows of one batch after another, until so many requests of
    1 to 8 texts have been served."""
    rng = np.random.default_rng(seed)
    while requests > 0:
        served = int(rng.integers(1, 16))
        requests -= served
        lengths = rng.lognormal(3.2, 0.9, served * int(rng.integers(1, 9))).clip(3, 256).astype(int)
        n = len(lengths)
        yield [4 * int(lengths.sum()), 4 * n, 4 * n, 4 * 384 * n]


@pytest.mark.parametrize("reserve", [None, 0])
def test_steady_traffic_takes_nothing_from_the_store(reserve: int | None) -> None:
    budget = 16 << 20
    options = PoolOptions(budget_bytes=budget, reserve_bytes=reserve, region_bytes=4 << 20)
    pool = Pool(HostStore(StoreOptions()), options, SystemClock())
    flight: deque[list[Block]] = deque()

    def serve(requests: int, seed: int) -> None:
        for wanted in batches(requests, seed):
            flight.append(pool.take_many(wanted))
            if len(flight) > 5:
                for block in flight.popleft():
                    pool.give(block)

    serve(10_000, seed=1)
    warm = pool.statistics()
    serve(100_000, seed=2)
    stats = pool.statistics()
    assert stats.store_allocations == warm.store_allocations
    assert stats.store_frees == 0
    assert stats.reserved_bytes == warm.reserved_bytes
    pool.check()
