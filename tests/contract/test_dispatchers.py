"""What every dispatcher must do, whatever it decides by: nothing is lost, nobody waits beside an idle machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from tandem.batching import POLICIES, BatchLimits
from tandem.errors import BackendFailed
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.device import Device, DeviceOptions
from tandem.scheduling.dispatch import DISPATCHERS
from tandem.types import Outcome, Output, Priority

FAST, SLOW = Cost(0.002, 1e-6), Cost(0.001, 7e-5)
ROW = np.zeros(2, np.float32)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(params=DISPATCHERS.names())
def core(request: pytest.FixtureRequest) -> SchedulerCore:
    devices = []
    for name, cost, most in (("cuda:0", FAST, 16_384), ("cpu", SLOW, 1024)):
        limits = BatchLimits(max_tokens=most, max_width=512)
        devices.append(Device(POLICIES.get("memory_aware")(limits), DeviceOptions(id=name, limits=limits, prior=cost)))
    return SchedulerCore(devices, DISPATCHERS.get(request.param)())


def asked(loop: asyncio.AbstractEventLoop, *lengths: int) -> list[Item]:
    group = Group(len(lengths), loop.create_future(), Priority.NORMAL, Output.POOLED)
    return [Item(group, index, [7] * length, 0) for index, length in enumerate(lengths)]


def ended(core: SchedulerCore, device: Device, batch: Batch, now: float) -> None:
    seconds = device.cost.seconds(batch.tokens, 0, len(batch.items))
    core.finish(device, batch, Outcome(device.id, len(batch.items), batch.tokens, batch.tokens, 0, now, now + seconds))
    for item in batch.items:
        item.group.settle(item.index, ROW, 0.0, 0.0)


def test_all_is_computed_once(core: SchedulerCore, loop: asyncio.AbstractEventLoop) -> None:
    requests = [asked(loop, *(range(1, 60, 1 + at % 7))) for at in range(20)]
    now = 0.0
    seen: list[Item] = []
    for items in requests:
        core.add(items, now)
    while core.waits:
        cut = list(core.batches(now))
        assert cut, "something waits, nothing runs"
        now += 0.01
        for device, batch in cut:
            seen += batch.items
            ended(core, device, batch, now)
    assert sorted(map(id, seen)) == sorted(id(item) for items in requests for item in items)
    assert all(items[0].group.future.done() for items in requests)


def test_the_work_of_a_device_that_goes_down_is_done_by_the_other(
    core: SchedulerCore, loop: asyncio.AbstractEventLoop
) -> None:
    items = asked(loop, *[20] * 300)
    core.add(items, 0.0)
    running = list(core.batches(0.0))
    gpu, cpu = core.devices
    core.judge(gpu, 0.001, up=False)
    for device, batch in running:
        if device is gpu:
            core.lost(gpu, batch, BackendFailed("it went down"))
        else:
            ended(core, device, batch, 0.1)
    now = 0.2
    while core.waits:
        now += 0.1
        for device, batch in list(core.batches(now)):
            assert device is cpu
            ended(core, device, batch, now)
    assert items[0].group.future.result() is None


def test_with_no_device_up_all_waits_and_is_done_when_one_is_back(
    core: SchedulerCore, loop: asyncio.AbstractEventLoop
) -> None:
    for device in core.devices:
        core.judge(device, 0.0, up=False)
    items = asked(loop, 5, 6)
    core.add(items, 0.0)
    assert not list(core.batches(0.0))
    assert core.backlog().queued_texts == 2
    core.judge(core.devices[1], 1.0, up=True)
    while core.waits:
        for device, batch in list(core.batches(1.0)):
            ended(core, device, batch, 1.0)
    assert items[0].group.future.done()
