"""Sketches say how near rows are, whatever their length, number of dimensions and common direction."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.types import Rows
from tandem.vectors.sketch import BITS, Sketch, planes
from tests.unit.vectors.rows import made


def unit(rows: Rows) -> Rows:
    length: Rows = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / length


def shares(sketch: Sketch, one: Rows, other: Rows) -> NDArray[np.float64]:
    """Of planes that lie between each row and its other."""
    ones = np.ones(len(one), np.float32)
    apart: NDArray[np.float64] = np.bitwise_count(sketch(one, ones) ^ sketch(other, ones)).sum(axis=1) / BITS
    return apart


@pytest.mark.parametrize("dims", [3, 16, 100, 128, 129, 250, 384, 1024])
def test_planes_between_two_rows_are_as_many_as_their_angle_says(dims: int) -> None:
    one = unit(made(400, dims=dims))
    other = unit(one + np.linspace(0.1, 3, 400, dtype=np.float32)[:, None] * unit(made(400, seed=2, dims=dims)))
    angles = np.arccos(np.clip(np.sum(one * other, axis=1), -1, 1)) / np.pi
    off = shares(planes(dims), one, other) - angles
    # A share of 384 planes has a standard deviation of 0.026 at most, those of three dimensions resemble each other.
    assert abs(off.mean()) <= 0.01
    assert off.std() <= 0.04


def test_the_length_of_a_row_changes_nothing() -> None:
    rows = unit(made(50, dims=200))
    sketch = planes(200).centred(rows[:20].repeat(4, axis=0))
    long = np.linspace(0.01, 100, 50, dtype=np.float32)
    same = sketch(rows, np.ones(50, np.float32)) == sketch(rows * long[:, None], long)
    assert same.mean() >= 0.999


def test_planes_through_the_middle_part_rows_that_have_a_direction_in_common() -> None:
    rows = unit(unit(made(600, dims=384)) + 3 * unit(made(1, seed=5, dims=384)))
    one, other, sample = rows[:200], rows[200:400], rows[400:]
    through_zero, through_middle = planes(384), planes(384).centred(sample)
    assert shares(through_zero, one, other).mean() < 0.2
    assert shares(through_middle, one, other).mean() > 0.4


def test_a_few_rows_say_nothing_of_the_middle() -> None:
    rows = unit(made(10, dims=40))
    assert not planes(40).centred(rows).middle.any()
