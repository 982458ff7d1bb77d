"""What every batch policy must do: whatever waits, its plan is one the core can run as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.batching import POLICIES, BatchLimits, BatchPolicy, QueueView
from tandem.types import Outcome

LIMITS = st.builds(
    BatchLimits,
    max_tokens=st.integers(1, 2048),
    max_width=st.sampled_from([64, 256, 512]),
    max_bytes=st.sampled_from([1 << 62, 1_000_000]),
    bytes_per_token=st.sampled_from([0.0, 1000.0]),
    bytes_per_square=st.sampled_from([0.0, 10.0]),
)


@st.composite
def views(draw: st.DrawFn) -> QueueView:
    lengths = sorted(draw(st.lists(st.integers(1, 700), min_size=1, max_size=120)))
    slots = draw(st.integers(1, 8))
    return QueueView(
        lengths=lengths,
        anchor=draw(st.integers(0, len(lengths) - 1)),
        total_tokens=sum(lengths),
        slots=slots,
        free_slots=draw(st.integers(1, slots)),
        running_tokens=draw(st.integers(0, 2000)),
        packs=draw(st.booleans()),
    )


each_policy = pytest.mark.parametrize("name", POLICIES.names())


def made(name: str, limits: BatchLimits) -> BatchPolicy:
    return POLICIES.get(name)(limits)


@each_policy
@given(limits=LIMITS, view=views())
def test_a_plan_holds_the_anchor_and_keeps_the_limits(name: str, limits: BatchLimits, view: QueueView) -> None:
    plan = made(name, limits).plan(view, 0.0)
    assert 0 <= plan.start <= view.anchor < plan.stop <= len(view.lengths)
    longest = view.lengths[plan.stop - 1]
    assert longest <= plan.width <= max(longest, limits.max_width)
    tokens = sum(view.lengths[plan.start : plan.stop]) if view.packs else plan.n * plan.width
    assert plan.n == 1 or tokens <= limits.room(plan.width)
    assert limits.bound(plan, view) == plan, "the core would have had to mend it"


@each_policy
@given(limits=LIMITS, view=views())
def test_a_plan_does_not_change_what_waits(name: str, limits: BatchLimits, view: QueueView) -> None:
    before = list(view.lengths)
    made(name, limits).plan(view, 0.0)
    assert view.lengths == before


@each_policy
@given(limits=LIMITS, view=views())
def test_what_a_batch_cost_may_be_told_at_any_time(name: str, limits: BatchLimits, view: QueueView) -> None:
    policy = made(name, limits)
    for ok in (True, False):
        policy.observe(Outcome("cpu", 3, 30, 36, 300, 1.0, 1.0, ok))
        plan = policy.plan(view, 2.0)
        assert plan.start <= view.anchor < plan.stop


@each_policy
@given(limits=LIMITS, view=views(), seed=st.integers(0, 3))
def test_a_queue_is_emptied(name: str, limits: BatchLimits, view: QueueView, seed: int) -> None:
    policy, lengths = made(name, limits), list(view.lengths)
    rounds = 0
    while lengths:
        anchor = (rounds * 31 + seed) % len(lengths)
        plan = policy.plan(QueueView(lengths, anchor, sum(lengths), view.free_slots), float(rounds))
        del lengths[plan.start : plan.stop]
        rounds += 1
    assert rounds <= len(view.lengths)
