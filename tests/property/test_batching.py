"""Bounds hold whatever a policy proposes; the grid of shapes is one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tandem.batching import BatchLimits, Plan, QueueView
from tandem.batching.shapes import floor_rows, round_width

lengths = st.lists(st.integers(1, 9000), min_size=1, max_size=60).map(sorted)
plans = st.builds(Plan, st.integers(-50, 100), st.integers(-50, 100), st.integers(-10, 20_000))
limits = st.builds(
    BatchLimits,
    max_tokens=st.integers(1, 20_000),
    max_width=st.integers(1, 8192),
    max_bytes=st.integers(1, 1 << 40),
    bytes_per_token=st.floats(0, 1e6),
    bytes_per_square=st.floats(0, 1e3),
)


@given(lengths=lengths, plan=plans, limits=limits, data=st.data())
def test_no_plan_leaves_out_the_anchor_or_passes_a_limit(
    lengths: list[int], plan: Plan, limits: BatchLimits, data: st.DataObject
) -> None:
    anchor = data.draw(st.integers(0, len(lengths) - 1))
    view = QueueView(lengths, anchor, sum(lengths), packs=data.draw(st.booleans()))
    bounded = limits.bound(plan, view)
    assert 0 <= bounded.start <= view.anchor < bounded.stop <= len(lengths)
    assert bounded.width >= lengths[bounded.stop - 1]
    tokens = sum(lengths[bounded.start : bounded.stop]) if view.packs else bounded.n * bounded.width
    each_bytes = limits.bytes_per_token + bounded.width * limits.bytes_per_square
    assert bounded.n == 1 or tokens <= limits.max_tokens
    assert bounded.n == 1 or tokens * each_bytes <= limits.max_bytes * (1 + 1e-9)
    assert limits.bound(bounded, view) == bounded


@given(length=st.integers(1, 100_000), longer=st.integers(0, 5000), max_width=st.integers(1, 100_000))
def test_widths_hold_their_text_and_grow_with_it(length: int, longer: int, max_width: int) -> None:
    width = round_width(length, max_width)
    assert length <= width <= max(length, max_width)
    assert width <= round_width(length + longer, max_width)
    assert round_width(width, max_width) == width


@given(n=st.integers(1, 100_000), more=st.integers(0, 5000))
def test_rows_are_on_the_grid_and_grow(n: int, more: int) -> None:
    rows = floor_rows(n)
    assert 0 < rows <= n
    assert rows <= floor_rows(n + more)
    assert floor_rows(rows) == rows
