"""The scheduler's core under any order of arrivals, departures, failures and time: nothing lost, doubled or starved."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tandem.batching import POLICIES, BatchLimits
from tandem.errors import BackendFailed, DeadlineExceeded
from tandem.scheduling.base import Batch, Group, Item, packing_of
from tandem.scheduling.core import PATIENCE_S, SchedulerCore, drop, single
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.device import Device, DeviceOptions
from tandem.scheduling.dispatch import DISPATCHERS
from tandem.types import Outcome, Output, Packing, Priority

LIMITS = BatchLimits(max_tokens=200, max_width=64)
ROW = np.zeros(2, np.float32)
POISON = -1


class Scheduling(RuleBasedStateMachine):
    """Callers, up to three devices of any speed that run batches in any order, go down and come back, and a clock, all
    of them hypothesis'."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.waiting: dict[int, Item] = {}
        self.running: list[tuple[Device, Batch]] = []
        self.settled: set[int] = set()
        self.groups: list[list[Item]] = []
        self.losses = 0

    @initialize(
        policy=st.sampled_from(POLICIES.names()),
        dispatcher=st.sampled_from(DISPATCHERS.names()),
        devices=st.lists(
            st.tuples(st.sampled_from(Packing), st.integers(1, 2), st.sampled_from([1e-3, 1e-4, 1e-6])),
            min_size=1,
            max_size=3,
        ),
    )
    def begin(self, policy: str, dispatcher: str, devices: list[tuple[Packing, int, float]]) -> None:
        made = []
        for index, (packing, slots, token_s) in enumerate(devices):
            limits = msgspec.structs.replace(LIMITS, packing=packing)
            options = DeviceOptions(id=str(index), slots=slots, limits=limits, prior=Cost(10 * token_s, token_s))
            made.append(Device(POLICIES.get(policy)(limits), options))
        self.core = SchedulerCore(made, DISPATCHERS.get(dispatcher)())

    @rule(
        rows=st.lists(st.tuples(st.integers(1, 80), st.integers(0, 19)), min_size=1, max_size=12),
        priority=st.sampled_from(Priority),
        output=st.sampled_from(Output),
        patience_s=st.one_of(st.none(), st.floats(0, 5)),
    )
    def arrive(self, rows: list[tuple[int, int]], priority: Priority, output: Output, patience_s: float | None) -> None:
        group = Group(len(rows), self.loop.create_future(), priority, output)
        group.deadline_s = None if patience_s is None else self.now + patience_s
        # One text in twenty fails its batch.
        items = [Item(group, i, [POISON if luck == 0 else 7] * n, 0) for i, (n, luck) in enumerate(rows)]
        self.core.add(items, self.now)
        self.groups.append(items)
        self.waiting |= {id(item): item for item in items}

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        items = data.draw(st.sampled_from(self.groups))
        items[0].group.future.cancel()
        drop(items)

    @rule()
    def cut(self) -> None:
        some_up = any(device.up for device in self.core.devices)
        for device, batch in self.core.batches(self.now):
            self.check(device, batch)
            self.running.append((device, batch))
        # Asked now: texts that would come too late may have been dropped.
        some_wait = any(not self.over(item) for item in self.waiting.values())
        assert self.running or not (some_wait and some_up), "a text waits and nothing runs"

    def check(self, device: Device, batch: Batch) -> None:
        assert device.up
        assert batch.items
        assert device.limits is not None
        assert len({item.group.output for item in batch.items} | {batch.output}) == 1
        assert max(item.length for item in batch.items) <= batch.width
        packs = packing_of(device.limits.packing, batch.output) is not Packing.ONE_A_ROW
        tokens = batch.tokens if packs else len(batch.items) * batch.width
        assert len(batch.items) == 1 or tokens <= LIMITS.max_tokens
        arrays = device.arrays(batch, 0)
        assert [text.tolist() for text in arrays.texts()] == [item.ids for item in batch.items]
        for item in batch.items:
            assert not item.group.departed, "nobody waits for it"
            assert item.group.deadline_s is None or self.now < item.group.deadline_s
            del self.waiting[id(item)]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def goes_down(self, data: st.DataObject) -> None:
        """With all that it runs."""
        device = self.running[data.draw(st.integers(0, len(self.running) - 1))][0]
        mine = [pair for pair in self.running if pair[0] is device]
        self.core.judge(device, self.now, up=False)
        self.losses += 1
        for pair in mine:
            self.running.remove(pair)
            self.waiting |= {id(item): item for item in pair[1].items}
            self.core.lost(*pair, BackendFailed("it went down"))

    @rule()
    def all_come_back(self) -> None:
        for device in self.core.devices:
            if not device.up:
                self.core.judge(device, self.now, up=True)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        device, batch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        ok = not any(POISON in item.ids for item in batch.items)
        n, padded = len(batch.items), len(batch.items) * batch.width
        outcome = Outcome(device.id, n, batch.tokens, padded, padded, self.now, self.now + 0.01, ok)
        self.core.finish(device, batch, outcome)
        if not ok:
            self.waiting |= {id(item): item for item in batch.items}
            self.core.failed(device, batch, BackendFailed("poison"))
            return
        for item in batch.items:
            assert id(item) not in self.settled, "computed twice"
            self.settled.add(id(item))
            item.group.settle(item.index, ROW, 0.0, 0.0)

    @invariant()
    def the_backlog_is_what_waits(self) -> None:
        if self.groups:
            live = [item for item in self.waiting.values() if not item.group.departed]
            backlog = self.core.backlog()
            assert backlog.queued_texts >= len(live)
            assert backlog.queued_tokens >= sum(item.length for item in live)

    def over(self, item: Item) -> bool:
        deadline_s = item.group.deadline_s
        return item.group.departed or (deadline_s is not None and self.now >= deadline_s)

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            self.loop.close()
            return
        self.all_come_back()
        for _ in range(10_000):
            self.cut()
            if not self.running:
                break
            while self.running:
                self.end(_First())
        for items in self.groups:
            group = items[0].group
            assert group.future.done(), "a caller was forgotten"
            error = None if group.future.cancelled() else group.future.exception()
            poisoned = any(POISON in item.ids for item in items)
            if isinstance(error, BackendFailed):
                assert poisoned or self.losses > 2, "failed by someone else's text"
            elif error is None and not group.future.cancelled():
                assert not poisoned
                assert all(row is not None for row in group.rows)
            else:
                assert group.future.cancelled() or isinstance(error, DeadlineExceeded)
        assert self.core.backlog().queued_texts == 0
        assert self.core.backlog().predicted_s == 0.0
        self.loop.close()


class _First:
    """Stands for hypothesis' data once the play is over: always the first choice."""

    def draw(self, strategy: object) -> int:
        return 0


def _turn(item: Item) -> tuple[float, int]:
    return item.rank, item.sequence


TestScheduling = Scheduling.TestCase


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    priorities=st.lists(st.sampled_from(Priority), min_size=40, max_size=40),
)
def test_the_one_whose_turn_it_is_is_in_the_batch(lengths: list[int], priorities: list[Priority]) -> None:
    loop = asyncio.new_event_loop()
    core = single(POLICIES.get("memory_aware")(LIMITS), DeviceOptions(limits=LIMITS))
    waiting: list[Item] = []
    for at, (length, priority) in enumerate(zip(lengths, priorities, strict=False)):
        group = Group(1, loop.create_future(), priority, Output.POOLED)
        item = Item(group, 0, [7] * length, 0)
        core.add([item], at * 0.1)
        assert item.rank == pytest.approx(at * 0.1 + PATIENCE_S * (1 + priority))
        waiting.append(item)
    while waiting:
        first = min(waiting, key=_turn)
        batch = core.next(core.devices[0], 0.0)
        assert batch is not None
        assert first in batch.items
        for item in batch.items:
            waiting.remove(item)
    assert core.next(core.devices[0], 0.0) is None
    loop.close()
