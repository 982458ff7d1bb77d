from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tandem.batching import BatchLimits
from tandem.batching.memory_aware import MemoryAwarePolicy
from tandem.errors import BackendFailed
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.device import GIVE_UP_S, Device, DeviceOptions
from tandem.scheduling.retries import Retries
from tandem.types import Output, Priority

ERROR = BackendFailed("it broke")
Make = Callable[[int], Batch]


def device(name: str, most: int = 1024) -> Device:
    limits = BatchLimits(max_tokens=most, max_width=64)
    return Device(MemoryAwarePolicy(limits), DeviceOptions(id=name, limits=limits))


@pytest.fixture
def batch() -> Iterator[Make]:
    """Makes a batch of so many requests of 10 tokens."""
    loop = asyncio.new_event_loop()
    made: list[Group] = []

    def make(n: int) -> Batch:
        groups = [Group(1, loop.create_future(), Priority.NORMAL, Output.POOLED) for _ in range(n)]
        made.extend(groups)
        return Batch([Item(group, 0, [7] * 10, 0) for group in groups], 10, Output.POOLED)

    yield make
    for group in made:
        if group.future.done():
            group.future.exception()
    loop.close()


def test_a_text_that_fails_alone_is_tried_everywhere_before_it_fails(batch: Make) -> None:
    gpu, cpu = device("cuda:0"), device("cpu")
    retries, bad = Retries(), batch(1)
    retries.failed(bad, gpu, (gpu, cpu), ERROR, 0.0)
    assert retries.take(gpu, (gpu, cpu), 0.0) is None, "it failed there"
    again = retries.take(cpu, (gpu, cpu), 0.0)
    assert again is not None
    assert again.items == bad.items
    retries.failed(again, cpu, (gpu, cpu), ERROR, 0.0)
    assert not retries
    assert bad.items[0].group.future.exception() is ERROR


def test_where_there_is_no_elsewhere_left_it_fails_at_once(batch: Make) -> None:
    gpu, cpu = device("cuda:0"), device("cpu")
    cpu.up = False
    retries, bad = Retries(), batch(1)
    retries.failed(bad, gpu, (gpu, cpu), ERROR, 0.0)
    assert bad.items[0].group.future.exception() is ERROR


def test_a_device_that_was_just_lost_is_waited_for_but_not_for_ever(batch: Make) -> None:
    gpu, cpu = device("cuda:0"), device("cpu")
    cpu.up, cpu.down_since_s = False, 5.0
    retries = Retries()
    retries.failed(batch(1), gpu, (gpu, cpu), ERROR, 6.0)
    assert retries.take(gpu, (gpu, cpu), 7.0) is None, "it failed there, and the other may be back soon"
    assert retries.take(gpu, (gpu, cpu), 5.0 + GIVE_UP_S) is not None


def test_halves_stay_where_the_whole_failed(batch: Make) -> None:
    gpu, cpu = device("cuda:0"), device("cpu")
    retries = Retries()
    retries.failed(batch(4), gpu, (gpu, cpu), ERROR, 0.0)
    assert retries.take(cpu, (gpu, cpu), 0.0) is None, "it would hold up what comes to the slower device"
    assert [len(half.items) for half in retries] == [2, 2]
    gpu.up = False
    assert retries.take(cpu, (gpu, cpu), 0.0) is not None


def test_a_lost_batch_runs_again_alone_and_is_cleared_by_that(batch: Make) -> None:
    gpu = device("cuda:0")
    retries, four = Retries(), batch(4)
    retries.lost(four, ERROR)
    other = batch(1)
    gpu.begin(other, 0.0)
    assert retries.want_alone(gpu, (gpu,), 0.0)
    assert retries.take(gpu, (gpu,), 0.0) is None, "another batch still runs"
    gpu.end(other)
    again = retries.take(gpu, (gpu,), 0.0)
    assert again is not None
    assert again.suspect
    assert len(again.items) == 4
    gpu.begin(again, 0.0)
    assert gpu.alone


def test_what_takes_a_device_down_alone_is_split_and_then_failed(batch: Make) -> None:
    gpu = device("cuda:0")
    retries, four = Retries(), batch(4)
    killer = four.items[2]
    retries.lost(four, ERROR)
    runs = 0
    while (one := retries.take(gpu, (gpu,), 0.0)) is not None:
        runs += 1
        if killer in one.items:
            retries.lost(one, ERROR)
    assert killer.group.future.exception() is ERROR
    assert [item.group.future.done() for item in four.items] == [False, False, True, False]
    assert runs <= 8


def test_a_batch_cut_for_a_large_device_is_run_by_a_small_one_in_parts(batch: Make) -> None:
    small = device("cpu", most=50)
    retries, large = Retries(), batch(32)
    retries.lost(large, ERROR)
    seen: list[Item] = []
    while (part := retries.take(small, (small,), 0.0)) is not None:
        assert len(part.items) * part.width <= 50
        seen += part.items
    assert sorted(map(id, seen)) == sorted(map(id, large.items))


def test_all_can_be_forgotten(batch: Make) -> None:
    retries, one = Retries(), batch(3)
    retries.lost(one, ERROR)
    assert retries.clear() == list(one.items)
    assert not retries
