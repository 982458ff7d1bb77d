from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from tandem.clock import SystemClock
from tandem.types import Output, TokenBatch
from tandem.workers.slab import Cargo, Reader, Slab
from tests.engines import batch_of

WIDTH = 16


@pytest.fixture
def slab() -> Iterator[Slab]:
    slab = Slab(1 << 20, SystemClock())
    yield slab
    slab.close()


@pytest.fixture
def reader(slab: Slab) -> Reader:
    return Reader(os.dup(slab.region.fileno()), slab.region.nbytes)


def received(reader: Reader, cargo: Cargo) -> TokenBatch:
    """As the child has it; it answers with 1, 2, 3, ..."""
    batch, rows = reader.unload(cargo.job, os.dup(cargo.files[0]) if cargo.files else -1)
    rows[:] = np.arange(rows.size).reshape(rows.shape)
    return batch


def assert_same(one: TokenBatch, other: TokenBatch) -> None:
    assert one.output == other.output
    for field in ("ids", "lengths", "places", "skips"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


PACKED = TokenBatch(
    ids=np.arange(64, dtype=np.int32).reshape(2, 32),
    lengths=np.array([3, 4, 30], np.int32),
    places=np.array([0, 3, 32], np.int32),
    skips=np.array([1, 0, 2], np.int32),
)
BATCHES = [
    PACKED,
    msgspec.structs.replace(PACKED, skips=None),
    batch_of([[2, 9, 3], [2, 3]]),
    batch_of([[2, 9, 3], [2, 3]], skips=[1, 0]),
    batch_of([[2, 9, 3], [2, 3]], output=Output.TOKENS),
]


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_goes_down_and_its_rows_come_up(slab: Slab, reader: Reader, batch: TokenBatch) -> None:
    cargo = slab.load(0, batch, WIDTH)
    assert_same(received(reader, cargo), batch)
    wanted = (*batch.ids.shape, WIDTH) if batch.output is Output.TOKENS else (len(batch.lengths), WIDTH)
    np.testing.assert_array_equal(cargo.rows, np.arange(np.prod(wanted)).reshape(wanted))
    assert cargo.files == ()


def test_ids_that_lie_there_are_not_copied(slab: Slab, reader: Reader) -> None:
    ids = slab.empty((1, 3))
    ids[:] = [2, 9, 3]
    cargo = slab.load(0, TokenBatch(ids=ids, lengths=np.array([3], np.int32)), WIDTH)
    got = received(reader, cargo).ids
    np.testing.assert_array_equal(got, [[2, 9, 3]])
    ids[0, 1] = 17
    assert got[0, 1] == 17


def test_ids_that_lie_there_in_another_order_are_copied(slab: Slab, reader: Reader) -> None:
    ids = slab.empty((3, 2))
    ids[:] = [[2, 2], [9, 8], [3, 3]]
    turned = TokenBatch(ids=ids.T, lengths=np.array([3, 3], np.int32))
    assert_same(received(reader, slab.load(0, turned, WIDTH)), turned)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("width", [WIDTH, 1 << 18], ids=["the slab is full", "it is too small"])
def test_what_does_not_fit_gets_memory_of_its_own(slab: Slab, reader: Reader, batch: TokenBatch, width: int) -> None:
    keep = [slab.empty((16,)) for _ in range(1 << 14)] if width == WIDTH else []
    ids = slab.empty(batch.ids.shape)
    ids[:] = batch.ids
    cargo = slab.load(0, msgspec.structs.replace(batch, ids=ids), width)
    assert slab.spilled == 1
    del keep
    assert_same(received(reader, cargo), batch)
    rows = cargo.rows
    files = len(os.listdir("/proc/self/fd"))
    cargo.sent()
    assert len(os.listdir("/proc/self/fd")) == files - 1, "the child has its own"
    del cargo
    assert len(os.listdir("/proc/self/fd")) == files - 1, "the mapping's own goes with the rows"
    assert rows.ravel()[-1] == rows.size - 1, "the rows stay"
    del rows
    assert len(os.listdir("/proc/self/fd")) == files - 2


def test_a_batch_larger_than_the_slab_does_not_cost_the_slab(slab: Slab, reader: Reader) -> None:
    slab.load(0, batch_of([[2, 9, 3]]), 1 << 20)
    cargo = slab.load(1, batch_of([[2, 9, 3]]), WIDTH)
    assert slab.spilled == 1
    assert_same(received(reader, cargo), batch_of([[2, 9, 3]]))
    assert slab.statistics().store_allocations == 1


def test_memory_comes_back_when_nobody_holds_rows(slab: Slab) -> None:
    free = slab.statistics().in_use_bytes
    rows = [slab.load(i, batch_of([[2, 9, 3]] * 10), WIDTH).rows[i] for i in range(10)]
    gc.collect()
    assert slab.statistics().in_use_bytes > free
    del rows
    assert slab.statistics().in_use_bytes == free


def test_a_steady_state_takes_nothing_from_the_system(slab: Slab) -> None:
    def round_trip(n: int) -> None:
        ids = slab.empty((n, 32))
        ids[:] = 1
        slab.load(0, TokenBatch(ids=ids, lengths=np.full(n, 32, np.int32)), WIDTH)

    for n in range(1, 33):
        round_trip(n)
    before = slab.statistics()
    for turn in range(5000):
        round_trip(turn % 32 + 1)
    after = slab.statistics()
    assert (after.store_allocations, after.misses) == (1, before.misses)
    assert after.takes - before.takes == 10_000, "ids, and one block for the rest"
    assert slab.spilled == 0
