"""What is given up when more is asked for than can be done in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tandem.batching import POLICIES, BatchLimits
from tandem.errors import DeadlineExceeded
from tandem.scheduling.base import Group, Item
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.device import Device, DeviceOptions
from tandem.types import Outcome, Output, Packing, Priority

# 10,000 tokens a second, and a batch of 100 tokens takes 11 ms.
COST = Cost(0.001, 1e-4)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # nobody asks these futures what became of them
    yield loop
    loop.close()


def make_core() -> SchedulerCore:
    limits = BatchLimits(max_tokens=100, max_width=512, packing=Packing.FLAT)
    return SchedulerCore([Device(POLICIES.get("memory_aware")(limits), DeviceOptions(limits=limits, prior=COST))])


def add(
    core: SchedulerCore,
    loop: asyncio.AbstractEventLoop,
    lengths: list[int],
    *,
    due_s: float | None = 0.1,
    priority: Priority = Priority.NORMAL,
) -> list[Item]:
    """One request a text."""
    items = []
    for length in lengths:
        group = Group(1, loop.create_future(), priority, Output.POOLED)
        group.deadline_s = due_s
        items.append(Item(group, 0, [7] * length, 0))
    core.add(items, 0.0)
    return items


def given_up(items: list[Item]) -> list[int]:
    """Their lengths."""
    return [item.length for item in items if item.group.future.done()]


def test_nothing_is_given_up_while_all_can_be_done(loop: asyncio.AbstractEventLoop) -> None:
    core = make_core()
    items = add(core, loop, [10, 90] * 5)
    next(core.batches(0.0))
    assert given_up(items) == []


def test_the_longest_go_first_and_are_told_at_once(loop: asyncio.AbstractEventLoop) -> None:
    core = make_core()
    items = add(core, loop, [10, 90, 20] * 20)
    next(core.batches(0.0))
    lengths = given_up(items)
    assert lengths
    assert set(lengths) == {90}
    with pytest.raises(DeadlineExceeded, match="overloaded"):
        next(item for item in items if item.group.future.done()).group.future.result()


@pytest.mark.parametrize(
    ("due_s", "priority"), [(None, Priority.NORMAL), (0.1, Priority.CRITICAL)], ids=["no deadline", "critical"]
)
def test_some_are_never_given_up(due_s: float | None, priority: Priority, loop: asyncio.AbstractEventLoop) -> None:
    core = make_core()
    kept = add(core, loop, [90] * 30, due_s=due_s, priority=priority)
    others = add(core, loop, [10] * 200)
    next(core.batches(0.0))
    assert given_up(kept) == []
    assert given_up(others)


def test_batches_stay_worth_beginning_when_too_much_waits(loop: asyncio.AbstractEventLoop) -> None:
    """Texts that have waited long make way for those that have not, before batches shrink to what is left of time."""
    core = make_core()
    add(core, loop, [10] * 400, due_s=0.1)
    now, done, batches = 0.0, 0, 0
    while (found := next(core.batches(now), None)) is not None:
        device, batch = found
        seconds = COST.seconds(batch.tokens, 0, len(batch.items))
        n, squares = len(batch.items), sum(item.length**2 for item in batch.items)
        outcome = Outcome(device.id, n, batch.tokens, batch.tokens, squares, now, now + seconds)
        now += seconds
        assert now <= 0.1 + 1e-9
        done, batches = done + n, batches + 1
        core.finish(device, batch, outcome)
    assert done >= 70
    assert done / batches >= 6
