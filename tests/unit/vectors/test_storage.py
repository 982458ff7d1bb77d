"""What keeping a row in fewer bytes does to its cosines."""

from __future__ import annotations

import numpy as np
import pytest

from tandem.errors import ConfigError
from tandem.vectors import IndexOptions
from tandem.vectors.base import Storage
from tandem.vectors.storage import checked, checked_codes, decode, directed, encode
from tests.unit.vectors.rows import made

# Of 384 dimensions: the most, and the standard deviation, over 200,000 pairs of which half are near each other.
OFF: dict[Storage, tuple[float, float]] = {
    "int8": (0.003, 0.0006),
    "float16": (0.0001, 0.00002),
    "float32": (2e-6, 2e-7),
}


@pytest.mark.parametrize("storage", OFF)
def test_a_cosine_is_off_by_little(storage: Storage) -> None:
    rows, others = made(400, dims=384), made(400, seed=2, dims=384)
    near = rows + 0.3 * others
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    kept = decode(encode(rows, storage))
    for queries in (others, near):
        off = queries @ kept.T - queries @ rows.T
        most, spread = OFF[storage]
        assert np.abs(off).max() <= most
        assert off.std() <= spread


@pytest.mark.parametrize("storage", OFF)
def test_coding_twice_changes_nothing_more(storage: Storage) -> None:
    once = encode(made(100), storage)
    np.testing.assert_allclose(decode(encode(decode(once), storage)), decode(once), atol=1e-6)


def test_int8_uses_all_of_its_range() -> None:
    codes = encode(made(50), "int8")
    assert codes.dtype == np.int8
    assert (np.abs(codes).max(axis=1) == 127).all()


def test_rows_of_whole_numbers_and_other_orders_are_taken() -> None:
    ids, rows = checked(np.array([2, 1], np.uint8), np.asfortranarray(np.eye(2, dtype=np.float32) * 3), 2)
    assert ids.dtype == np.int64
    assert rows.tolist() == [[1, 0], [0, 1]]


def test_the_last_of_an_id_wins_and_order_is_kept() -> None:
    ids, rows = checked(np.array([4, 9, 4, 1]), np.eye(4, dtype=np.float32), 4)
    assert ids.tolist() == [9, 4, 1]
    assert rows.argmax(axis=1).tolist() == [1, 2, 3]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_rows_that_are_looked_up_may_be_of_any_length(scale: float) -> None:
    given = (made(20) * scale).astype(np.float32)
    rows, long = directed(given, made(1).shape[1])
    directions = given.astype(np.float64) / np.linalg.norm(given.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(rows / long[:, None], directions, atol=1e-6)
    np.testing.assert_allclose(directed(given[:1], given.shape[1])[0], rows[:1])


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("count", [1, 3])
def test_rows_without_a_direction_are_not_looked_up(wrong: float, count: int) -> None:
    rows = made(count)
    rows[-1] = wrong
    with pytest.raises(ValueError, match="direction"):
        directed(rows, rows.shape[1])


@pytest.mark.parametrize(
    ("codes", "about"), [(np.zeros((1, 4), np.int8), "direction"), (np.ones((1, 5), np.int8), "5")]
)
def test_stored_rows_that_are_none_are_refused(codes: np.ndarray, about: str) -> None:
    with pytest.raises(ValueError, match=about):
        checked_codes(np.array([1]), codes, 4, "int8")


@pytest.mark.parametrize(
    ("wrong", "about"),
    [
        ({"dims": 0}, "dims"),
        ({"storage": "int4"}, "int4"),
        ({"connectivity": 1}, "connectivity"),
        ({"expansion_search": -1}, "expansion_search"),
        ({"linear_up_to": -1}, "linear_up_to"),
        ({"rebuild_after": 0.0}, "rebuild_after"),
        ({"rebuild_after": float("nan")}, "rebuild_after"),
        ({"cell_rows": 0}, "cell_rows"),
        ({"probes": 0}, "probes"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object], about: str) -> None:
    with pytest.raises(ConfigError, match=about):
        IndexOptions(**{"dims": 8, **wrong})  # type: ignore[arg-type]
