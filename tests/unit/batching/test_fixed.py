from __future__ import annotations

from tandem.batching.base import BatchLimits, Plan, QueueView
from tandem.batching.fixed import FixedPolicy

LIMITS = BatchLimits(max_tokens=1024, max_width=256)


def plan(lengths: list[int], anchor: int, size: int = 4, limits: BatchLimits = LIMITS) -> Plan:
    return FixedPolicy(limits, size).plan(QueueView(lengths, anchor, sum(lengths)), 0.0)


def test_takes_its_number_of_texts_whatever_their_lengths() -> None:
    assert plan([5, 6, 7, 200, 201], 1) == Plan(1, 5, 208)


def test_takes_all_where_there_are_fewer() -> None:
    assert plan([5, 6], 1) == Plan(0, 2, 6)


def test_reaches_back_from_the_long_end() -> None:
    assert plan([5, 6, 7, 8, 9], 4) == Plan(1, 5, 9)


def test_is_cut_to_the_budget_but_keeps_the_anchor() -> None:
    limits = BatchLimits(max_tokens=64, max_width=256)
    assert plan([10, 20, 30, 40, 50], 1, limits=limits) == Plan(1, 3, 30)
    assert plan([10, 20, 30, 40, 50], 4, limits=limits) == Plan(4, 5, 52)
