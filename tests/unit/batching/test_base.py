from __future__ import annotations

import pytest

from tandem.batching.base import BatchLimits, Plan, QueueView

LIMITS = BatchLimits(max_tokens=100, max_width=64)


@pytest.mark.parametrize(("width", "fits"), [(1, 100), (10, 10), (33, 3), (64, 1), (101, 1)])
def test_capacity_counts_padded_tokens(width: int, fits: int) -> None:
    assert LIMITS.capacity(width) == fits


def test_capacity_counts_bytes_where_they_are_fewer() -> None:
    limits = BatchLimits(max_tokens=1000, max_width=64, max_bytes=10_000, bytes_per_token=10, bytes_per_square=1)
    # A text of 20 tokens: 200 bytes for tokens, 400 for the squares.
    assert limits.capacity(20) == 16
    assert limits.capacity(1) == 909
    assert limits.capacity(500) == 1


VIEW = QueueView([5, 6, 7, 20, 30, 60], anchor=3, total_tokens=128)


@pytest.mark.parametrize(
    ("plan", "bounded"),
    [
        (Plan(2, 4, 20), Plan(2, 4, 20)),
        # Does not hold the anchor: too short, or beyond it, or empty.
        (Plan(0, 2, 7), Plan(0, 4, 20)),
        (Plan(5, 6, 60), Plan(3, 4, 60)),
        (Plan(3, 3, 20), Plan(3, 4, 20)),
        (Plan(4, 2, 20), Plan(3, 4, 20)),
        # Out of the queue.
        (Plan(-3, 99, 20), Plan(0, 4, 20)),
        # Narrower than its longest text, and wider than any text may be.
        (Plan(3, 5, 8), Plan(3, 5, 30)),
        (Plan(3, 4, 9999), Plan(3, 4, 64)),
        # Over the budget: 100 tokens are 5 texts of 20, 3 of 30.
        (Plan(0, 5, 30), Plan(1, 4, 30)),
    ],
)
def test_what_a_policy_proposes_is_made_to_keep_its_word(plan: Plan, bounded: Plan) -> None:
    assert LIMITS.bound(plan, VIEW) == bounded


def test_a_text_over_the_budget_runs_alone() -> None:
    view = QueueView([90, 300], anchor=1, total_tokens=390)
    assert LIMITS.bound(Plan(0, 2, 300), view) == Plan(1, 2, 300)
