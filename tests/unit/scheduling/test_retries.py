from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tandem.batching import BatchLimits
from tandem.batching.memory_aware import MemoryAwarePolicy
from tandem.errors import BackendFailed
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.device import Device, DeviceOptions
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
    retries.failed(bad, gpu, (gpu, cpu), ERROR)
    assert retries.take(gpu, (gpu, cpu)) is None, "it failed there"
    again = retries.take(cpu, (gpu, cpu))
    assert again is not None
    assert again.items == bad.items
    retries.failed(again, cpu, (gpu, cpu), ERROR)
    assert not retries
    assert bad.items[0].group.future.exception() is ERROR


def test_where_there_is_no_elsewhere_left_it_fails_at_once(batch: Make) -> None:
    gpu, cpu = device("cuda:0"), device("cpu")
    cpu.up = False
    retries, bad = Retries(), batch(1)
    retries.failed(bad, gpu, (gpu, cpu), ERROR)
    assert bad.items[0].group.future.exception() is ERROR


def test_what_waits_for_an_elsewhere_that_goes_down_is_run_where_it_failed(batch: Make) -> None:
    gpu, cpu = device("cuda:0"), device("cpu")
    retries = Retries()
    retries.failed(batch(1), gpu, (gpu, cpu), ERROR)
    cpu.up = False
    assert retries.take(gpu, (gpu, cpu)) is not None


def test_a_lost_batch_is_run_again_whole_once_then_in_halves(batch: Make) -> None:
    gpu = device("cuda:0")
    retries, all_four = Retries(), batch(4)
    retries.lost(all_four, ERROR)
    again = retries.take(gpu, (gpu,))
    assert again is not None
    assert len(again.items) == 4
    retries.lost(again, ERROR)
    assert [len(half.items) for half in retries] == [2, 2]


def test_a_text_that_takes_every_device_down_fails_alone(batch: Make) -> None:
    gpu = device("cuda:0")
    retries, four = Retries(), batch(4)
    killer = four.items[2]
    retries.lost(four, ERROR)
    runs = 0
    while (one := retries.take(gpu, (gpu,))) is not None:
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
    while (part := retries.take(small, (small,))) is not None:
        assert len(part.items) * part.width <= 50
        seen += part.items
    assert sorted(map(id, seen)) == sorted(map(id, large.items))


def test_all_can_be_forgotten(batch: Make) -> None:
    retries, one = Retries(), batch(3)
    retries.lost(one, ERROR)
    assert retries.clear() == list(one.items)
    assert not retries
