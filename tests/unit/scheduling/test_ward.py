"""Devices that go down, come back, or give wrong answers, under the real loop; their workers are driven by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.batching import BatchLimits
from tandem.batching.memory_aware import MemoryAwarePolicy
from tandem.clock import ManualClock
from tandem.errors import BackendFailed, NotReady
from tandem.memory import PoolStatistics
from tandem.scheduling.base import Group, Item
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.device import GIVE_UP_S, Device, DeviceOptions
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import Outcome, Output, Packing, Priority, Tier, TokenBatch
from tandem.workers.base import DeviceFacts, Done, outcome_of

LIMITS = BatchLimits(max_tokens=64, max_width=64)
POISON = 9
Answer = Callable[[TokenBatch], Done]


class HandWorker:
    """Answers each batch at once, as its ``answer`` will have it."""

    slots = 1
    facts = DeviceFacts(backend="hand", tier=Tier.FP32, dims=2, hidden=2, streams=1, packing=Packing.ONE_A_ROW)

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.listener: Callable[[bool, str], None] = lambda up, why: None
        self.ran: list[int] = []
        self.restarts: list[str] = []
        self.answer: Answer = self.right
        self.closed_at_once: bool | None = None

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        self.ran.append(len(batch.lengths))
        on_done(self.answer(batch))

    def watch(self, listener: Callable[[bool, str], None]) -> None:
        self.listener = listener

    def statistics(self) -> PoolStatistics | None:
        return None

    def restart(self, why: str) -> None:
        self.restarts.append(why)

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        return np.empty(shape, np.int32)

    def close(self, at_once: bool = False) -> None:
        self.closed_at_once = at_once

    def outcome(self, batch: TokenBatch, ok: bool) -> Outcome:
        return outcome_of(self.device_id, batch, 0.0, 0.001, ok=ok)

    def right(self, batch: TokenBatch) -> Done:
        return Done(self.outcome(batch, True), np.ones((len(batch.lengths), 2), np.float32))

    def wrong(self, batch: TokenBatch) -> Done:
        return Done(self.outcome(batch, False), error="not finite")

    def choosy(self, batch: TokenBatch) -> Done:
        return self.wrong(batch) if (batch.ids == POISON).any() else self.right(batch)

    def lost(self, batch: TokenBatch) -> Done:
        return Done(self.outcome(batch, False), error="it ended", lost=True)

    def refused(self, batch: TokenBatch) -> Done:
        return Done(self.outcome(batch, False), error="no memory", refused=True)


class Site:
    def __init__(self, *device_ids: str) -> None:
        self.clock = ManualClock()
        self.workers = [HandWorker(device_id) for device_id in device_ids]
        devices = [
            Device(MemoryAwarePolicy(LIMITS), DeviceOptions(id=name, limits=LIMITS, prior=Cost(1e-3, 1e-4)))
            for name in device_ids
        ]
        self.core = SchedulerCore(devices)
        self.heard: list[Outcome] = []
        self.loop = SchedulerLoop(self.core, self.workers, self.clock, 0, self.heard.append)

    async def ask(self, *texts: list[int]) -> None:
        group = Group(len(texts), asyncio.get_running_loop().create_future(), Priority.NORMAL, Output.POOLED)
        await self.loop.run(group, [Item(group, index, text, 0) for index, text in enumerate(texts)])


async def settled() -> None:
    """Let what was posted to the event loop happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_bad_texts_do_not_restart_a_device_that_is_well() -> None:
    site = Site("a", "b")
    for worker in site.workers:
        worker.answer = worker.choosy
    for _ in range(3):
        with pytest.raises(BackendFailed, match="not finite"):
            await site.ask([POISON], [POISON])
        await settled()
    assert site.loop.health()[0]
    assert all(not worker.restarts for worker in site.workers)
    await site.ask([7])
    await site.loop.close()


async def test_a_device_that_gives_wrong_answers_rests_while_another_serves() -> None:
    site = Site("a", "b")
    bad, _ = site.workers
    bad.answer = bad.wrong
    for _ in range(5):
        await asyncio.gather(*(site.ask([7] * 60) for _ in range(8)))
    await settled()
    assert bad.restarts == ["not finite"]
    before = len(bad.ran)
    for _ in range(5):
        await asyncio.gather(*(site.ask([7] * 60) for _ in range(8)))
    assert len(bad.ran) == before, "it gets no more of them"
    assert site.loop.health() == (True, "not finite")
    bad.answer = bad.right
    bad.listener(True, "it is back")
    await settled()
    assert site.loop.health() == (True, "")
    await asyncio.gather(*(site.ask([7] * 60) for _ in range(8)))
    assert len(bad.ran) > before + 1, "it was put to the test and serves again"
    await site.loop.close()


async def test_alone_an_unwell_device_goes_on_trying() -> None:
    site = Site("a")
    (worker,) = site.workers
    worker.answer = worker.wrong
    for _ in range(2):
        with pytest.raises(BackendFailed):
            await site.ask([7])
    await settled()
    assert site.loop.health() == (False, "not finite")
    worker.answer = worker.right
    await site.ask([7])
    assert site.loop.health() == (True, "")
    await site.loop.close()


async def test_with_no_device_for_too_long_those_who_wait_are_told_and_new_ones_refused() -> None:
    site = Site("a")
    (worker,) = site.workers
    await site.ask([7])
    worker.listener(False, "it was killed")
    await settled()
    waiting = asyncio.create_task(site.ask([7]))
    await settled()
    assert not waiting.done(), "it may be back soon"
    site.clock.advance(GIVE_UP_S + 0.1)
    site.loop.ward._look()  # what the timer would do
    with pytest.raises(NotReady, match="no device has been up for 10 s: a is down: it was killed"):
        await waiting
    with pytest.raises(NotReady) as told:
        await site.ask([7])
    assert told.value.retry_after_s
    worker.listener(True, "it is back")
    await site.ask([7])
    await site.loop.close()


async def test_news_are_heeded_by_the_next_event_loop_too() -> None:
    site = Site("a")
    (worker,) = site.workers
    await site.ask([7])
    await asyncio.to_thread(lambda: asyncio.run(site.ask([7])))  # that loop is closed now
    worker.listener(False, "it was killed")
    worker.listener(True, "it is back")
    await site.ask([7])
    await site.loop.close()


async def test_a_batch_that_a_worker_does_not_take_is_offered_again() -> None:
    site = Site("a")
    (worker,) = site.workers
    answers = iter([worker.refused, worker.refused, worker.right])
    worker.answer = lambda batch: next(answers)(batch)
    await site.ask([7])
    assert len(worker.ran) == 3
    assert site.loop.health() == (True, "")
    await site.loop.close()


async def test_a_worker_that_never_has_room_does_not_keep_its_texts_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.scheduling.loop._REFUSED_S", 0.0)
    site = Site("a")
    (worker,) = site.workers
    worker.answer = worker.refused
    with pytest.raises(BackendFailed, match="no memory"):
        await site.ask([7])
    worker.answer = worker.right
    await site.ask([7])
    await site.loop.close()


async def test_neighbours_of_a_text_that_kills_are_not_held_responsible() -> None:
    site = Site("a")
    (worker,) = site.workers

    def mortal(batch: TokenBatch) -> Done:
        return worker.lost(batch) if (batch.ids == POISON).any() else worker.right(batch)

    worker.answer = mortal
    texts = [[7] * 8, [7] * 8, [POISON], [7] * 8]
    ended = await asyncio.gather(*(site.ask(text) for text in texts), return_exceptions=True)
    assert [isinstance(one, BackendFailed) for one in ended] == [False, False, True, False]
    await site.loop.close()


async def test_a_device_that_fails_its_warming_does_not_keep_the_others_from_serving() -> None:
    site = Site("a", "b")
    bad, _ = site.workers
    bad.answer = bad.wrong
    await site.loop.warm([[(1, 8)], [(1, 8)]])
    assert site.loop.health() == (True, "not finite")
    await site.ask([7])
    site.workers[1].answer = site.workers[1].wrong
    with pytest.raises(BackendFailed):
        await site.loop.warm([[(1, 8)], [(1, 8)]])
    await site.loop.close()


async def test_a_worker_that_dies_while_it_is_warmed_is_warmed_again() -> None:
    site = Site("a")
    (worker,) = site.workers
    answers = iter([worker.lost, *[worker.right] * 9])

    def once(batch: TokenBatch) -> Done:
        done = next(answers)(batch)
        if done.lost:
            worker.listener(False, "it was killed")
            asyncio.get_running_loop().call_soon(worker.listener, True, "it is back")
        return done

    worker.answer = once
    await site.loop.warm([[(1, 8), (2, 8)]])
    assert worker.ran == [1, 1, 2, 1, 2]
    await site.loop.close()


@pytest.mark.parametrize("at_once", [True, False])
async def test_closing_passes_on_how_much_time_there_is(at_once: bool) -> None:
    site = Site("a")
    await site.loop.close(at_once=at_once)
    assert site.workers[0].closed_at_once is at_once
