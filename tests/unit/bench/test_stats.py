from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.bench.stats import cosines, interleave, lowest_cosine, paired_ratio, spearman, summarize


def test_a_summary_is_the_median_and_the_quartiles() -> None:
    found = summarize([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.q1, found.median, found.q3) == (2.0, 3.0, 4.0)
    assert found.values == [4.0, 1.0, 3.0, 2.0, 5.0]
    assert found.text(1) == "3.0 [2.0 - 4.0]"
    assert summarize([7]).text(0) == "7"


def test_nothing_measured_is_an_error_and_not_a_nan() -> None:
    with pytest.raises(ValueError, match="nothing"):
        summarize([])


def test_rounds_alternate_and_turn_round_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return len(order)

    values = interleave({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=2, warm_up=1)
    assert "".join(order) == "baabba"
    assert values == {"a": [3, 6], "b": [4, 5]}


def test_a_paired_ratio_takes_out_what_slowed_both() -> None:
    assert paired_ratio([2.0, 20.0, 4.0], [1.0, 10.0, 2.0]).values == [2.0, 2.0, 2.0]


def test_the_lowest_cosine_finds_the_one_wrong_row() -> None:
    rows = np.eye(3, dtype=np.float32)
    wrong = rows.copy()
    wrong[1] = [0.6, 0.8, 0]
    assert lowest_cosine(rows * 5, rows) == pytest.approx(1)
    assert lowest_cosine(wrong, rows) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="shapes"):
        lowest_cosine(rows[:2], rows)


def test_spearman_shares_ranks_among_ties() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman([1, 2, 2, 3], [10, 20, 30, 40]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30, unique=True))
def test_spearman_sees_order_only(values: list[float]) -> None:
    ranks = np.argsort(np.argsort(values))
    assert spearman(values, ranks) == pytest.approx(1)
    assert spearman(values, -ranks) == pytest.approx(-1)


def test_cosines_are_of_pairs() -> None:
    left = np.array([[1, 0], [3, 4]], np.float32)
    right = np.array([[0, 2], [3, 4]], np.float32)
    assert cosines(left, right).tolist() == [0.0, 1.0]
