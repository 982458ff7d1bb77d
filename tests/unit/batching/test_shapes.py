from __future__ import annotations

from tandem.batching.shapes import floor_rows, round_width

LONGEST = 8192


def test_widths_grow_with_lengths_and_stay_on_the_grid() -> None:
    widths = [round_width(length, LONGEST) for length in range(1, LONGEST + 1)]
    assert widths == sorted(widths)
    assert all(width >= length for length, width in enumerate(widths, 1))
    assert all(round_width(width, LONGEST) == width for width in set(widths))


def test_rounding_up_wastes_little() -> None:
    lengths = range(17, 1025)
    waste = [1 - length / round_width(length, LONGEST) for length in lengths]
    assert max(waste) < 0.12
    assert sum(waste) / len(waste) < 0.04


def test_a_width_never_passes_the_models_longest_text() -> None:
    assert round_width(250, 250) == 250
    assert round_width(249, 250) == 250


def test_a_text_over_the_limit_still_fits_its_own_width() -> None:
    assert round_width(300, 256) == 300


def test_rows_are_cut_to_the_grid_and_never_to_none() -> None:
    floors = [floor_rows(n) for n in range(1, 500)]
    assert floors == sorted(floors)
    assert all(0 < floor <= n for n, floor in enumerate(floors, 1))
    assert all(floor_rows(floor) == floor for floor in set(floors))
    assert floors[:8] == list(range(1, 9))
    assert len(set(floors)) < 50
