"""The core is driven by hand here: no loop runs, no clock ticks, no device exists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tandem.batching import BatchLimits, Plan, QueueView
from tandem.batching.memory_aware import MemoryAwarePolicy
from tandem.errors import BackendFailed, DeadlineExceeded, Draining, TandemError
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.core import PATIENCE_S, SchedulerCore, drop, single
from tandem.scheduling.device import DeviceOptions
from tandem.types import Outcome, Output, Packing, Priority

LIMITS = BatchLimits(max_tokens=256, max_width=64)
ROW = np.zeros(4, np.float32)
Ask = Callable[..., list[Item]]


@pytest.fixture
def core() -> SchedulerCore:
    return single(MemoryAwarePolicy(LIMITS), DeviceOptions(limits=LIMITS))


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Makes a request's items: lengths, then its class."""
    loop = asyncio.new_event_loop()
    groups: list[Group] = []

    def make(
        *lengths: int,
        priority: Priority = Priority.NORMAL,
        deadline_s: float | None = None,
        output: Output = Output.POOLED,
    ) -> list[Item]:
        group = Group(len(lengths), loop.create_future(), priority, output)
        group.deadline_s = deadline_s
        groups.append(group)
        return [Item(group, index, [7] * length, 0) for index, length in enumerate(lengths)]

    yield make
    for group in groups:
        if group.future.done() and not group.future.cancelled():
            group.future.exception()  # told, or asyncio would log it
    loop.close()


def ended(core: SchedulerCore, batch: Batch, *, ok: bool = True) -> None:
    n, tokens = len(batch.items), batch.tokens
    core.finish(core.devices[0], batch, Outcome("cpu", n, tokens, n * batch.width, tokens, 0.0, 0.001, ok))
    if ok:
        for item in batch.items:
            item.group.settle(item.index, ROW, 0.0, 0.0)
    else:
        core.failed(core.devices[0], batch, BackendFailed("it broke"))


def error_of(item: Item) -> BaseException | None:
    return item.group.future.exception() if item.group.future.done() else None


def drained(core: SchedulerCore, now: float = 0.0) -> list[Batch]:
    batches = []
    while (batch := core.next(core.devices[0], now)) is not None:
        batches.append(batch)
        ended(core, batch)
    return batches


def test_nothing_waits_nothing_runs(core: SchedulerCore) -> None:
    assert core.next(core.devices[0], 0.0) is None
    assert core.backlog().queued_texts == 0
    assert core.backlog().predicted_s == 0.0


def test_texts_of_several_callers_share_a_batch(core: SchedulerCore, ask: Ask) -> None:
    first, second = ask(8), ask(8, 8)
    core.add(first, 0.0)
    core.add(second, 0.0)
    (batch,) = drained(core)
    assert sorted(map(id, batch.items)) == sorted(map(id, first + second))
    assert all(item.group.future.done() for item in first + second)


class Alone:
    """One text a batch."""

    def plan(self, view: QueueView, now: float) -> Plan:
        return Plan(view.anchor, view.anchor + 1, view.lengths[view.anchor])

    def observe(self, outcome: Outcome) -> None: ...


def test_critical_goes_before_normal_before_background(ask: Ask) -> None:
    core = single(Alone())
    late, middle, first = (ask(8, priority=priority) for priority in reversed(Priority))
    for items in (late, middle, first):
        core.add(items, 0.0)
    assert [batch.items for batch in drained(core)] == [first, middle, late]


def test_background_waits_long_but_not_for_ever(core: SchedulerCore, ask: Ask) -> None:
    background = ask(60, priority=Priority.BACKGROUND)
    core.add(background, 0.0)
    now = 0.0
    while not background[0].group.future.done():
        core.add(ask(6, priority=Priority.CRITICAL), now)
        batch = core.next(core.devices[0], now)
        assert batch is not None
        ended(core, batch)
        now += 0.5
        assert now <= 2 * PATIENCE_S + 1.0


def test_a_question_overtakes_the_tail_of_a_long_list_but_not_its_head(core: SchedulerCore, ask: Ask) -> None:
    many = ask(*[60] * 2000)
    core.add(many, 0.0)
    head = core.next(core.devices[0], 0.0)
    assert head is not None
    assert head.items[0] in many
    question = ask(6)
    core.add(question, core.devices[0].cost.token_s * head.tokens)
    before = 0
    while not question[0].group.future.done():
        batch = core.next(core.devices[0], 0.0)
        assert batch is not None
        before += len(batch.items)
        ended(core, batch)
    assert before <= 8


def test_questions_do_not_starve_the_list_that_came_first(core: SchedulerCore, ask: Ask) -> None:
    many = ask(*[60] * 100)
    core.add(many, 0.0)
    now = 0.0
    while many[0].group.pending:
        # As much work again as the device can do, in questions.
        core.add(ask(*[6] * 40), now)
        batch = core.next(core.devices[0], now)
        assert batch is not None
        ended(core, batch)
        now += batch.tokens * core.devices[0].cost.token_s
        assert now < 60


def test_departed_callers_cost_nothing(core: SchedulerCore, ask: Ask) -> None:
    gone, stays = ask(8, 8), ask(8)
    core.add(gone, 0.0)
    core.add(stays, 0.0)
    gone[0].group.future.cancel()
    assert [batch.items for batch in drained(core)] == [stays]


def test_a_caller_who_leaves_frees_the_queue_at_once(core: SchedulerCore, ask: Ask) -> None:
    gone, stays = ask(*[8] * 50), ask(8)
    core.add(gone, 0.0)
    core.add(stays, 0.0)
    drop(gone)
    assert core.backlog().queued_texts == 1
    assert core.backlog().queued_tokens == 8
    assert [batch.items for batch in drained(core)] == [stays]


def test_a_passed_deadline_is_told_and_not_computed(core: SchedulerCore, ask: Ask) -> None:
    late, fine = ask(8, deadline_s=1.0), ask(8, deadline_s=1.1)
    core.add(late, 0.0)
    core.add(fine, 0.0)
    assert [batch.items for batch in drained(core, now=1.0)] == [fine]
    assert isinstance(error_of(late[0]), DeadlineExceeded)


def test_a_bad_text_fails_nobody_else(core: SchedulerCore, ask: Ask) -> None:
    requests = [ask(8) for _ in range(16)]
    bad = requests[11][0]
    for items in requests:
        core.add(items, 0.0)
    runs = 0
    while (batch := core.next(core.devices[0], 0.0)) is not None:
        runs += 1
        ended(core, batch, ok=bad not in batch.items)
    assert isinstance(error_of(bad), BackendFailed)
    assert all(items[0].group.future.done() for items in requests)
    assert [error_of(items[0]) for items in requests if items[0] is not bad] == [None] * 15
    assert runs == 9, "16 texts: one run, and two for each halving"


def test_a_device_that_always_fails_tells_the_first_callers_first(core: SchedulerCore, ask: Ask) -> None:
    requests = [ask(8) for _ in range(16)]
    for items in requests:
        core.add(items, 0.0)
    runs = 0
    while not any(items[0].group.future.done() for items in requests):
        batch = core.next(core.devices[0], 0.0)
        assert batch is not None
        ended(core, batch, ok=False)
        runs += 1
    assert runs == 5, "depth first: 16, 8, 4, 2, 1"
    while (batch := core.next(core.devices[0], 0.0)) is not None:
        ended(core, batch, ok=False)
    assert all(isinstance(error_of(items[0]), BackendFailed) for items in requests)
    assert core.backlog().predicted_s == 0.0


def test_halves_of_a_request_that_has_failed_are_not_run_again(core: SchedulerCore, ask: Ask) -> None:
    items = ask(*[8] * 16)
    core.add(items, 0.0)
    runs = 0
    while (batch := core.next(core.devices[0], 0.0)) is not None:
        ended(core, batch, ok=False)
        runs += 1
    assert runs == 5
    assert isinstance(error_of(items[0]), BackendFailed)


def test_halves_count_as_waiting(core: SchedulerCore, ask: Ask) -> None:
    core.add(ask(*[8] * 4), 0.0)
    batch = core.next(core.devices[0], 0.0)
    assert batch is not None
    ended(core, batch, ok=False)
    assert core.backlog().queued_texts == 4
    assert core.backlog().queued_tokens == 32


def test_the_backlog_counts_what_waits_and_predicts_what_runs_too(core: SchedulerCore, ask: Ask) -> None:
    core.add(ask(60), 0.0)
    core.add(ask(8, 8), 0.0)
    batch = core.next(core.devices[0], 0.0)
    assert batch is not None
    backlog = core.backlog()
    assert backlog.queued_texts == 3 - len(batch.items)
    assert backlog.queued_tokens == 76 - batch.tokens
    assert backlog.predicted_s == pytest.approx(76 / core.devices[0].rate)


def test_outputs_do_not_mix(core: SchedulerCore, ask: Ask) -> None:
    pooled, tokens = ask(8), ask(8, output=Output.TOKENS)
    core.add(pooled, 0.0)
    core.add(tokens, 0.0)
    batches = drained(core)
    assert [batch.items for batch in batches] == [pooled, tokens]
    assert [batch.output for batch in batches] == [Output.POOLED, Output.TOKENS]


def test_everything_can_be_told_that_it_will_not_happen(core: SchedulerCore, ask: Ask) -> None:
    again, waiting = ask(8, 8), ask(60)
    core.add(again, 0.0)
    batch = core.next(core.devices[0], 0.0)
    assert batch is not None
    ended(core, batch, ok=False)
    core.add(waiting, 0.0)
    core.fail_all(Draining("over"))
    assert isinstance(error_of(again[0]), Draining)
    assert isinstance(error_of(waiting[0]), Draining)
    assert core.next(core.devices[0], 0.0) is None
    assert core.backlog().queued_texts == 0


class Rogue:
    """Proposes what it was told to, sense or no sense."""

    def __init__(self, *plan: int) -> None:
        self._plan = Plan(*plan)

    def plan(self, view: QueueView, now: float) -> Plan:
        return self._plan

    def observe(self, outcome: Outcome) -> None: ...


@pytest.mark.parametrize("plan", [(0, 0, 0), (5, 2, 8), (0, 10_000, 1), (-9, 99, 10_000), (3, 4, 8)])
def test_no_policy_can_starve_lose_or_overfill(ask: Ask, plan: tuple[int, ...]) -> None:
    core = single(Rogue(*plan), DeviceOptions(limits=LIMITS))
    requests = [ask(length) for length in (60, 9, 31, 8, 44, 12, 64, 9, 70)]
    for items in requests:
        core.add(items, 0.0)
    seen: list[Item] = []
    for batch in drained(core):
        seen += batch.items
        assert batch.width >= max(item.length for item in batch.items)
        assert len(batch.items) * batch.width <= LIMITS.max_tokens
    assert sorted(map(id, seen)) == sorted(id(items[0]) for items in requests)


def test_a_batch_packs_ids_lengths_and_skips(ask: Ask) -> None:
    one, two = ask(2, 3)
    two.skip = 1
    packed = Batch([one, two], 4, Output.TOKENS).arrays(0, Packing.ONE_A_ROW, 4)
    assert packed.ids.tolist() == [[7, 7, 0, 0], [7, 7, 7, 0]]
    assert packed.ids.dtype == packed.lengths.dtype == np.int32
    assert packed.lengths.tolist() == [2, 3]
    assert packed.skips is not None
    assert packed.skips.tolist() == [0, 1]
    assert packed.output is Output.TOKENS
    assert Batch([one], 2, Output.POOLED).arrays(0, Packing.ONE_A_ROW, 4).skips is None


def test_a_group_ends_once(ask: Ask) -> None:
    one, two = ask(2, 3)
    group = one.group
    group.settle(0, ROW, 0.5, 0.1)
    assert not group.departed
    group.settle(1, ROW, 0.5, 0.1)
    group.fail(TandemError("too late"))
    assert group.future.result() is None
    assert (group.queue_s, group.infer_s) == (1.0, 0.2)
    assert two.group is group


def test_what_would_come_too_late_is_dropped_when_others_wait(core: SchedulerCore, ask: Ask) -> None:
    """Alone it takes 5 ms by the prior: 4 ms are not enough for it, and the second needs the time."""
    late, other = ask(60, deadline_s=0.004), ask(60)
    core.add(late, 0.0)
    core.add(other, 0.0)
    fillers = [ask(60) for _ in range(4)]
    for items in fillers:
        core.add(items, 0.0)
    batch = core.next(core.devices[0], 0.0)
    assert batch is not None
    assert late[0] not in batch.items
    assert isinstance(late[0].group.future.exception(), DeadlineExceeded)


def test_a_batch_is_no_larger_than_the_deadline_of_its_first_text_allows(core: SchedulerCore, ask: Ask) -> None:
    """Filled up with background texts, the batch would end after it."""
    urgent = ask(20, priority=Priority.CRITICAL, deadline_s=0.008)
    for _ in range(40):
        core.add(ask(20, priority=Priority.BACKGROUND), 0.0)
    core.add(urgent, 0.0)
    batch = core.next(core.devices[0], 0.0)
    assert batch is not None
    assert urgent[0] in batch.items
    assert 1 < len(batch.items) < 10
    assert core.devices[0].wait_s(0.0) <= 0.008


def test_a_batch_that_was_refused_waits_on_in_its_old_place(core: SchedulerCore, ask: Ask) -> None:
    first, second = ask(60), ask(6)
    core.add(first, 0.0)
    batch = core.next(core.devices[0], 0.0)
    assert batch is not None
    core.add(second, 0.1)
    core.refused(core.devices[0], batch)
    again = core.next(core.devices[0], 0.2)
    assert again is not None
    assert first[0] in again.items
    assert not core.devices[0].busy or core.devices[0].running_tokens == again.tokens


def test_what_would_come_too_late_is_tried_when_nobody_waits(core: SchedulerCore, ask: Ask) -> None:
    late = ask(60, deadline_s=1e-4)
    core.add(late, 0.0)
    batch = core.next(core.devices[0], 0.0)
    assert batch is not None
    assert batch.items == late
