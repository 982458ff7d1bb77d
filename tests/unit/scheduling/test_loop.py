"""The loop over a real worker with the fake backend behind a door."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import numpy as np
import pytest

from tandem.batching import Plan, QueueView
from tandem.clock import SystemClock
from tandem.errors import BackendFailed, Draining, NotReady
from tandem.scheduling.base import Group, Item
from tandem.scheduling.core import single
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import Outcome, Output, Priority
from tandem.workers.inline import InlineWorker
from tests.engines import FAKE, NAN_ID, POISON_ID, Device, make_loop

Asked = tuple[Group, list[Item]]


def ask(*rows: list[int], output: Output = Output.POOLED, priority: Priority = Priority.NORMAL) -> Asked:
    group = Group(len(rows), asyncio.get_running_loop().create_future(), priority, output)
    return group, [Item(group, index, ids, 0) for index, ids in enumerate(rows)]


async def start(loop: SchedulerLoop, asked: Asked) -> asyncio.Task[None]:
    """The request under way: its texts are in the queue, or on the device."""
    task = asyncio.create_task(loop.run(*asked))
    await asyncio.sleep(0)
    return task


async def test_an_idle_device_starts_at_once() -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    waiting = await start(loop, ask([2, 9, 3]))
    await device.arrival()
    assert device.computed == [[2, 9, 3]]
    device.door.set()
    await waiting
    await loop.close()


async def test_rows_come_back_in_the_callers_order() -> None:
    device = Device()
    loop = make_loop(device)
    asked = ask([2, 9, 3], [2, 8, 7, 6, 3], [2, 3], [2, 9, 3])
    await loop.run(*asked)
    rows = asked[0].rows
    again = ask([2, 8, 7, 6, 3])
    await loop.run(*again)
    np.testing.assert_array_equal(rows[1], again[0].rows[0])
    np.testing.assert_array_equal(rows[0], rows[3])
    assert asked[0].infer_s > 0
    await loop.close()


async def test_token_rows_are_cut_to_the_texts_length() -> None:
    loop = make_loop(Device())
    asked = ask([2, 9, 3], [2, 8, 7, 3], output=Output.TOKENS)
    await loop.run(*asked)
    assert [row.shape for row in asked[0].rows if row is not None] == [(3, 16), (4, 16)]
    await loop.close()


async def test_a_caller_who_leaves_is_dropped_before_compute() -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    first = await start(loop, ask([2, 10, 3]))
    await device.arrival()
    leaves, stays = await start(loop, ask([2, 12, 3])), await start(loop, ask([2, 13, 3]))
    assert loop.core.backlog().queued_texts == 2
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert loop.core.backlog().queued_texts == 1
    device.door.set()
    await asyncio.gather(first, stays)
    assert [2, 12, 3] not in device.computed
    assert [2, 13, 3] in device.computed
    await loop.close()


async def test_one_of_a_shared_batch_leaves_and_the_others_are_served() -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    before = [await start(loop, ask([2, 10, 3])), await start(loop, ask([2, 10, 3]))]
    asked = [ask([2, 20 + i, 3]) for i in range(4)]
    tasks = [await start(loop, one) for one in asked]
    device.door.set()
    await asyncio.gather(*before)
    tasks[2].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one for index, one in enumerate(ended) if index != 2] == [None] * 3
    assert all(asked[index][0].rows[0] is not None for index in (0, 1, 3))
    await loop.close()


async def test_a_bad_text_in_a_shared_batch_fails_its_own_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    before = [await start(loop, ask([2, 10, 3])), await start(loop, ask([2, 10, 3]))]
    tasks = [await start(loop, ask([2, 20 + i, 3])) for i in range(7)]
    bad = [await start(loop, ask([2, POISON_ID, 3])), await start(loop, ask([2, 30, 3], [2, NAN_ID, 3]))]
    device.door.set()
    await asyncio.gather(*before, *tasks)
    for task, told in zip(bad, ("is poison", "not finite"), strict=True):
        with pytest.raises(BackendFailed, match=told):
            await task
    assert loop.core.backlog().queued_texts == 0
    assert sum(record.exc_info is not None for record in caplog.records) == 1, "one traceback, not one a half"
    ok = ask([2, 11, 3])
    await loop.run(*ok)
    assert loop.health()[0]
    await loop.close()


async def test_the_rest_of_a_failed_request_leaves_the_queue() -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    # The poisoned text is short and goes first; 63 words do not share its batch.
    asked = ask([2, POISON_ID, 3], *[[2, *[20] * 60, 3]] * 40)
    task = await start(loop, asked)
    await device.arrival()
    device.door.set()
    with pytest.raises(BackendFailed):
        await task
    assert loop.core.backlog().queued_texts == 0
    await loop.close()
    assert len(device.computed) < 41


async def test_a_device_that_always_fails_answers_and_says_so() -> None:
    device = Device()
    loop = make_loop(device)
    await loop.run(*ask([2, 9, 3]))
    assert loop.health() == (True, "")

    def broken() -> None:
        raise OSError("the device is on fire")

    device.fault = broken
    for _ in range(2):
        with pytest.raises(BackendFailed, match="the device is on fire"):
            await loop.run(*ask(*[[2, 9, 3]] * 64))
    ready, why = loop.health()
    assert not ready
    assert "the device is on fire" in why
    assert len(device.batches) < 2 * 10, "one failed text is enough for a request"
    device.fault = lambda: None
    await loop.run(*ask([2, 9, 3]))
    assert loop.health()[0]
    await loop.close()


async def test_one_bad_text_does_not_make_the_device_ill() -> None:
    loop = make_loop(Device())
    with pytest.raises(BackendFailed):
        await loop.run(*ask([2, POISON_ID, 3]))
    assert loop.health()[0]
    await loop.close()


async def test_closing_answers_everyone() -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    running = await start(loop, ask([2, 10, 3]))
    await device.arrival()
    waiting = await start(loop, ask([2, 12, 3]))
    closing = asyncio.create_task(loop.close())
    with pytest.raises(Draining):
        await waiting
    device.door.set()
    await closing
    await running
    assert device.closed == 1
    with pytest.raises(Draining):
        await loop.run(*ask([2, 13, 3]))
    await loop.close()
    assert len(device.batches) == 1


async def test_a_batch_that_fails_while_closing_is_not_run_in_halves() -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    tasks = [await start(loop, ask([2, 10, 3], [2, POISON_ID, 3]))]
    await device.arrival()
    closing = asyncio.create_task(loop.close())
    await asyncio.sleep(0)
    device.door.set()
    await closing
    with pytest.raises(Draining):
        await tasks[0]
    assert len(device.batches) == 1


async def test_warming_runs_each_shape_and_tells_a_failure() -> None:
    device = Device(msgspec.structs.replace(FAKE, streams=2))
    loop = make_loop(device)
    before = loop.core.devices[0].cost.token_s
    await loop.warm([[(1, 6), (4, 32)]])
    # On both streams, and once more to learn what it costs.
    assert sorted(batch.ids.shape for batch in device.batches) == [(1, 6)] * 3 + [(4, 32)] * 3
    assert loop.core.devices[0].cost.token_s != before

    def broken() -> None:
        raise MemoryError("no room")

    device.fault = broken
    with pytest.raises(BackendFailed, match="no room"):
        await loop.warm([[(1, 6)]])
    await loop.close()


async def test_warming_can_be_given_up() -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    warming = asyncio.create_task(loop.warm([[(1, 6)]]))
    await device.arrival()
    warming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await warming
    device.door.set()
    await loop.run(*ask([2, 9, 3]))
    await loop.close()


async def test_the_observer_hears_of_every_batch_good_or_bad() -> None:
    heard: list[Outcome] = []
    loop = make_loop(Device(), observer=heard.append)
    await loop.run(*ask([2, 9, 3], [2, 9, 9, 9, 3]))
    with pytest.raises(BackendFailed):
        await loop.run(*ask([2, POISON_ID, 3]))
    await loop.close()
    assert sum(one.n for one in heard if one.ok) == 2
    assert sum(one.tokens for one in heard if one.ok) == 8
    assert [one.tokens for one in heard if not one.ok] == [3]


class Broken:
    """A policy with a bug, in one place or the other."""

    def __init__(self, *, plans: bool) -> None:
        self._plans = plans

    def plan(self, view: QueueView, now: float) -> Plan:
        if not self._plans:
            raise ZeroDivisionError("a bug")
        return Plan(view.anchor, view.anchor + 1, view.lengths[view.anchor])

    def observe(self, outcome: Outcome) -> None:
        raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("plans", [True, False])
async def test_a_policy_with_a_bug_leaves_nobody_waiting(plans: bool) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    loop = SchedulerLoop(
        single(Broken(plans=plans)),
        [InlineWorker(Device(), SystemClock())],
        SystemClock(),
        0,
        lambda _: None,
    )
    ended = await asyncio.gather(*(loop.run(*ask([2, i, 3])) for i in range(6, 12)), return_exceptions=True)
    if plans:
        assert ended == [None] * 6
    else:
        assert all(isinstance(one, BackendFailed) and "a bug" in str(one) for one in ended)
    await loop.close()
    assert told, "the bug is told to whoever runs the service"


async def test_a_failing_observer_harms_no_caller() -> None:
    def broken(outcome: Outcome) -> None:
        raise ZeroDivisionError

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    loop = make_loop(Device(), observer=broken)
    await loop.run(*ask([2, 9, 3]))
    await loop.run(*ask([2, 9, 3]))
    await loop.close()
    assert told


async def test_an_error_that_nobody_waits_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    device = Device(shut=True)
    loop = make_loop(device)
    group, items = ask([2, 9, 3])
    task = await start(loop, (group, items))
    group.fail(BackendFailed("in the same moment"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del group, items, task
    device.door.set()
    await loop.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_work_that_is_stranded_in_a_closed_event_loop_is_told_and_ends_no_thread() -> None:
    device = Device(shut=True)
    stranded = asyncio.new_event_loop()
    loop = make_loop(device)

    async def begin() -> None:
        asyncio.get_running_loop().create_task(loop.run(*ask([2, 9, 3])))
        await device.arrival()

    async def work() -> None:
        await loop.run(*ask([2, 9, 3]))

    stranded.run_until_complete(begin())
    for task in asyncio.all_tasks(stranded):
        task.cancel()
    stranded.run_until_complete(asyncio.sleep(0))
    stranded.run_until_complete(stranded.shutdown_default_executor())
    stranded.close()
    with pytest.raises(NotReady, match="another event loop"):
        asyncio.run(work())
    device.door.set()
    asyncio.run(loop.close())
    assert device.closed == 1


def test_loops_may_follow_each_other_when_nothing_is_under_way() -> None:
    loop = make_loop(Device())

    async def work() -> None:
        await loop.run(*ask([2, 9, 3]))

    asyncio.run(work())
    asyncio.run(work())
    loop.halt()


async def test_a_halted_engine_refuses() -> None:
    device = Device()
    loop = make_loop(device, SystemClock())
    await asyncio.to_thread(loop.halt)
    with pytest.raises(Draining):
        await loop.run(*ask([2, 9, 3]))
    assert device.closed == 1
