"""Who takes what: a GPU with a high fixed cost and a CPU beside it, driven by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tandem.batching import POLICIES, BatchLimits
from tandem.scheduling.base import Group, Item
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.device import Device, DeviceOptions, look_again_s
from tandem.types import Output, Packing, Priority

GPU = Cost(0.003, 2e-6)
CPU = Cost(0.001, 7e-5)


def device(name: str, cost: Cost, most: int = 16_384, slots: int = 1, objective_s: float = 0.0) -> Device:
    limits = BatchLimits(max_tokens=most, max_width=512, packing=Packing.FLAT)
    options = DeviceOptions(id=name, limits=limits, prior=cost, slots=slots, latency_objective_s=objective_s)
    return Device(POLICIES.get("memory_aware")(limits), options)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def core() -> SchedulerCore:
    return SchedulerCore([device("cpu", CPU, 1024), device("cuda:0", GPU)])


def add(core: SchedulerCore, loop: asyncio.AbstractEventLoop, now: float, *lengths: int) -> list[Item]:
    """One request a text."""
    items = []
    for length in lengths:
        group = Group(1, loop.create_future(), Priority.NORMAL, Output.POOLED)
        items.append(Item(group, 0, [7] * length, 0))
        core.add(items[-1:], now)
    return items


def cut(core: SchedulerCore, now: float) -> dict[str, list[Item]]:
    return {device.id: list(batch.items) for device, batch in core.batches(now)}


def test_one_short_question_goes_to_the_cpu_which_is_done_before_the_gpu_has_begun(
    core: SchedulerCore, loop: asyncio.AbstractEventLoop
) -> None:
    question = add(core, loop, 0.0, 10)
    assert cut(core, 0.0) == {"cpu": question}


def test_one_long_text_goes_to_the_gpu(core: SchedulerCore, loop: asyncio.AbstractEventLoop) -> None:
    text = add(core, loop, 0.0, 400)
    assert cut(core, 0.0) == {"cuda:0": text}


def test_a_crowd_goes_to_the_gpu_whole(core: SchedulerCore, loop: asyncio.AbstractEventLoop) -> None:
    texts = add(core, loop, 0.0, *[30] * 100)
    found = cut(core, 0.0)
    assert list(found) == ["cuda:0"]
    assert len(found["cuda:0"]) == len(texts), "nothing is left for a device that would be later"


def test_what_the_gpu_would_come_to_in_time_is_left_to_it(core: SchedulerCore, loop: asyncio.AbstractEventLoop) -> None:
    add(core, loop, 0.0, *[30] * 100)
    cut(core, 0.0)
    # It runs 9 ms; then 3.4 ms more for this one. The CPU would take 15.
    late = add(core, loop, 0.002, 200)
    assert cut(core, 0.002) == {}
    assert late[0].window is not None
    assert look_again_s(core.devices, 0.002) == pytest.approx(0.007, rel=0.01)


def test_a_gpu_that_is_late_is_waited_for_no_longer(core: SchedulerCore, loop: asyncio.AbstractEventLoop) -> None:
    add(core, loop, 0.0, *[30] * 100)
    cut(core, 0.0)
    late = add(core, loop, 0.002, 200)
    assert cut(core, 0.002) == {}
    assert cut(core, 0.5) == {"cpu": late}


def test_beside_a_busy_gpu_the_cpu_takes_from_the_end_of_a_long_queue(loop: asyncio.AbstractEventLoop) -> None:
    core = SchedulerCore([device("cpu", CPU, 1024), device("cuda:0", GPU, most=4096)])
    texts = add(core, loop, 0.0, *[64] * 2000)
    order = list(core.batches(0.0))
    # One that runs and one ahead, then the CPU.
    assert [device.id for device, _ in order][:3] == ["cuda:0", "cuda:0", "cpu"]
    assert {id(item) for _, batch in order[:2] for item in batch.items} == {id(item) for item in texts[:128]}
    mine = order[2][1].items
    own_s = CPU.seconds(64 * len(mine), 0, 0)
    places = [texts.index(item) for item in mine]
    assert len(set(places)) == len(places)
    # The GPU needs 11 ms for its batch of 4,096 and as much for each further one: none of these would be done sooner.
    batches_before = [place * 64 // 4096 for place in places]
    assert min((1 + before) * GPU.seconds(4096, 0, 0) for before in batches_before) >= own_s


@pytest.mark.parametrize(("texts", "late"), [(500, False), (20_000, True)])
def test_a_faint_device_takes_only_what_would_be_late(texts: int, late: bool, loop: asyncio.AbstractEventLoop) -> None:
    fast = Cost(0.003, 4e-7)
    core = SchedulerCore([device("cpu", CPU, 1024, objective_s=0.1), device("cuda:0", fast, objective_s=0.1)])
    add(core, loop, 0.0, *[100] * 400)
    assert list(cut(core, 0.0)) == ["cuda:0"], "idle, it takes all that it can"
    waiting = add(core, loop, 0.001, *[20] * texts)
    found = cut(core, 0.001)
    assert ("cpu" in found) is late
    if late:
        assert waiting.index(found["cpu"][0]) * 20 * fast.token_s > 0.05


def test_a_faint_device_still_answers_a_short_question_that_comes_alone(loop: asyncio.AbstractEventLoop) -> None:
    fast = Cost(0.003, 4e-7)
    core = SchedulerCore([device("cpu", CPU, 1024, objective_s=0.1), device("cuda:0", fast, objective_s=0.1)])
    question = add(core, loop, 0.0, 10)
    assert cut(core, 0.0) == {"cpu": question}


def test_equals_do_not_wait_for_each_other(loop: asyncio.AbstractEventLoop) -> None:
    core = SchedulerCore([device("cpu#1", CPU, 1024), device("cpu#2", CPU, 1024)])
    first = add(core, loop, 0.0, 90)
    assert list(cut(core, 0.0).values()) == [first]
    second = add(core, loop, 0.001, 90)
    assert list(cut(core, 0.001).values()) == [second]


def test_a_device_that_is_down_is_not_counted_on(core: SchedulerCore, loop: asyncio.AbstractEventLoop) -> None:
    core.judge(core.devices[1], 0.0, up=False)
    texts = add(core, loop, 0.0, *[30] * 10)
    assert cut(core, 0.0) == {"cpu": texts}
