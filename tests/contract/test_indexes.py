"""What every vector index must do, small or large, linear or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.vectors import INDEXES, NOTHING, Index, IndexOptions, SnapshotBroken, load_index, save_index
from tandem.vectors.base import Storage

DIMS = 24
# How far a cosine may be from that of the float32 rows: |code - row| at worst, for random rows of 24 dimensions.
ERROR: dict[Storage, float] = {"float32": 2e-6, "float16": 5e-4, "int8": 6e-3}

# (name, linear_up_to, cell_rows): each kind as it starts, and as it is when it has grown.
KINDS = {
    "linear": ("linear", 2048, 50_000),
    "hnsw": ("hnsw", 2048, 50_000),
    "adaptive, small": ("adaptive", 2048, 50_000),
    "adaptive, a graph": ("adaptive", 40, 50_000),
    "sharded, one cell": ("sharded", 2048, 50_000),
    "sharded, linear cells": ("sharded", 2048, 40),
    "sharded, graphs": ("sharded", 20, 40),
}


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def made(n: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, DIMS)).astype(np.float32)


def options(kind: str, storage: Storage = "int8") -> IndexOptions:
    _, linear_up_to, cell_rows = KINDS[kind]
    return IndexOptions(
        dims=DIMS, storage=storage, linear_up_to=linear_up_to, cell_rows=cell_rows, probes=99, background=False
    )


def settled(index: Index) -> Index:
    """All that would be done in the background, done now."""
    run = getattr(index, "run_pending", None)
    if run is not None:
        run()
    return index


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def index(kind: str) -> Iterator[Index]:
    created = INDEXES.get(KINDS[kind][0])(options(kind))
    yield created
    created.close()


def test_every_index_has_a_test() -> None:
    assert {name for name, _, _ in KINDS.values()} == set(INDEXES)


@pytest.mark.parametrize("storage", ["int8", "float16", "float32"])
def test_the_nearest_come_first_with_cosines_as_exact_as_the_storage(kind: str, storage: Storage) -> None:
    index = INDEXES.get(KINDS[kind][0])(options(kind, storage))
    rows, queries = made(300), made(40, seed=2)
    index.add(np.arange(300) * 3, 5 * rows)
    ids, cosines = settled(index).search(queries, 4)
    truth = unit(queries) @ unit(rows).T
    assert ids.dtype == np.int64
    assert cosines.dtype == np.float32
    assert ids.shape == cosines.shape == (40, 4)
    np.testing.assert_allclose(cosines, np.take_along_axis(truth, ids // 3, 1), atol=ERROR[storage])
    # Nothing that was left out is nearer by more than the error.
    np.testing.assert_allclose(cosines, -np.sort(-truth, axis=1)[:, :4], atol=2 * ERROR[storage])
    assert (np.diff(cosines, axis=1) <= 0).all()
    index.close()


def test_an_empty_index_finds_nothing(index: Index) -> None:
    ids, cosines = index.search(made(2), 3)
    assert (ids == NOTHING).all()
    assert (cosines == -1).all()
    assert len(index) == 0
    assert len(index.ids()) == 0
    assert index.remove(np.array([1, 2])) == 0


def test_fewer_than_asked_for_are_filled_up(index: Index) -> None:
    index.add(np.array([7, 9]), made(2))
    ids, cosines = index.search(made(2), 5)
    assert ids[:, 0].tolist() == [7, 9]
    assert (ids[:, 2:] == NOTHING).all()
    assert (cosines[:, 2:] == -1).all()


def test_no_queries_no_answers(index: Index) -> None:
    index.add(np.array([7]), made(1))
    ids, cosines = index.search(np.empty((0, DIMS), np.float32), 5)
    assert ids.shape == cosines.shape == (0, 5)


def test_an_id_that_is_there_is_replaced(index: Index) -> None:
    rows = made(200)
    index.add(np.arange(200), rows)
    settled(index)
    index.add(np.arange(100), rows[100:])
    assert len(settled(index)) == 200
    found, codes = index.stored(np.arange(100))
    again, others = index.stored(np.arange(100, 200))
    assert (codes[np.argsort(found)] == others[np.argsort(again)]).all()
    ids, _ = index.search(rows[:100], 1)
    assert (ids[:, 0] != np.arange(100)).all()


def test_of_an_id_that_comes_twice_the_last_is_kept(index: Index) -> None:
    rows = made(3)
    index.add(np.array([5, 6, 5]), rows)
    assert len(index) == 2
    ids, _ = index.search(rows, 1)
    assert ids[1:, 0].tolist() == [6, 5]


def test_what_is_removed_is_not_found(index: Index) -> None:
    rows = made(300)
    index.add(np.arange(300), rows)
    settled(index)
    assert index.remove(np.array([*range(0, 300, 2), 0, 999])) == 150
    ids, cosines = settled(index).search(rows, 2)
    assert len(index) == 150
    assert (ids[1::2, 0] == np.arange(1, 300, 2)).all()
    assert (cosines[1::2, 0] > 0.999).all()
    assert (ids % 2 == 1).all()
    assert sorted(index.ids().tolist()) == list(range(1, 300, 2))
    assert index.remove(np.arange(300)) == 150
    assert (settled(index).search(rows[:1], 2)[0] == NOTHING).all()
    index.add(np.arange(300), rows)
    assert (settled(index).search(rows, 1)[0][:, 0] == np.arange(300)).all()


def test_rows_survive_a_change_of_index_bit_for_bit(index: Index, kind: str) -> None:
    index.add(np.arange(200), made(200))
    ids, codes = settled(index).stored(np.array([3, 500, 150]))
    assert set(ids.tolist()) == {3, 150}
    other = INDEXES.get("linear")(options(kind))
    other.add_stored(ids, codes)
    again, copied = other.stored(ids)
    assert (again == ids).all()
    assert (copied == codes).all()
    with pytest.raises(ValueError, match="int8"):
        index.add_stored(ids, codes.astype(np.float32))


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        ([1], made(2)),
        ([-1, 1], made(2)),
        ([[1, 2]], made(2)),
        ([1.5, 2.0], made(2)),
        ([1, 2], np.zeros((2, DIMS), np.float32)),
        ([1, 2], np.full((2, DIMS), np.nan, np.float32)),
        ([1, 2], np.full((2, DIMS), np.inf, np.float32)),
        ([1, 2], made(2)[:, 1:]),
        ([1, 2], made(2).ravel()),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    index: Index, ids: list[int], rows: NDArray[np.float32]
) -> None:
    index.add(np.array([1]), made(1, seed=3))
    with pytest.raises(ValueError, match=r"id|row"):
        index.add(np.array(ids), rows)
    assert index.search(made(1, seed=3), 2)[0].tolist() == [[1, NOTHING]]


def test_huge_and_tiny_rows_keep_their_direction(index: Index) -> None:
    rows = unit(made(2))
    index.add(np.array([1, 2]), np.stack([rows[0] * np.float32(1e30), rows[1] * np.float32(1e-30)]))
    ids, cosines = index.search(rows, 1)
    assert ids[:, 0].tolist() == [1, 2]
    assert (cosines[:, 0] > 0.999).all()


def test_a_snapshot_is_the_index_again(index: Index, kind: str, tmp_path: Path) -> None:
    rows = made(300)
    index.add(np.arange(300), rows)
    settled(index).remove(np.arange(0, 300, 3))
    path = tmp_path / "rows.index"
    save_index(index, path)
    save_index(index, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.index"]
    again = load_index(path, options(kind))
    before, after = index.search(rows, 3), again.search(rows, 3)
    assert (before[0] == after[0]).all()
    np.testing.assert_allclose(before[1], after[1], atol=1e-6)
    # And it goes on as the index would have.
    again.add(np.arange(0, 300, 3), rows[::3])
    assert (settled(again).search(rows, 1)[0][:, 0] == np.arange(300)).all()
    again.close()


def test_an_empty_index_can_be_saved(index: Index, kind: str, tmp_path: Path) -> None:
    save_index(index, tmp_path / "none")
    assert len(load_index(tmp_path / "none", options(kind))) == 0


def test_other_rows_than_asked_for_are_refused(index: Index, kind: str, tmp_path: Path) -> None:
    index.add(np.arange(9), made(9))
    save_index(index, tmp_path / "rows")
    with pytest.raises(SnapshotBroken, match="float32"):
        load_index(tmp_path / "rows", options(kind, "float32"))
    with pytest.raises(SnapshotBroken, match="dims 24, not 25"):
        load_index(tmp_path / "rows", IndexOptions(dims=25))


def test_memory_grows_with_rows(index: Index) -> None:
    index.add(np.arange(3000), made(3000))
    settled(index)
    assert 3000 * DIMS < index.memory_bytes() < 3000 * (DIMS + 600)


def test_closing_twice_and_searching_after_it(index: Index) -> None:
    index.add(np.arange(100), made(100))
    index.close()
    index.close()
    assert index.search(made(100), 1)[0][:, 0].tolist() == list(range(100))
