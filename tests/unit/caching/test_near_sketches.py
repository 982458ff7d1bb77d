from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.caching.near_sketches import SketchIndex

DIMS = 32


def signatures(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIMS)).astype(np.float32)


def turned(signature: NDArray[np.float32], cosine: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A signature at this very cosine with the given one, of another length."""
    unit = signature / np.linalg.norm(signature)
    other = rng.standard_normal(DIMS).astype(np.float32)
    other -= (other @ unit) * unit
    other /= np.linalg.norm(other)
    found: NDArray[np.float32] = (7 * (cosine * unit + np.sqrt(1 - cosine**2) * other)).astype(np.float32)
    return found


def filled(rows: NDArray[np.float32], space: int = 1) -> SketchIndex:
    index = SketchIndex(DIMS, len(rows))
    for slot, row in enumerate(rows):
        index.put(slot, row, space)
    return index


def test_what_is_near_is_found_among_thousands_with_its_cosine() -> None:
    rows, rng = signatures(5000), np.random.default_rng(1)
    index = filled(rows)
    wanted = rng.integers(0, len(rows), 300).tolist()
    found = [index.nearest(turned(rows[slot], 0.9, rng), 4, 1) for slot in wanted]
    right = [one[0][1] for one, slot in zip(found, wanted, strict=True) if one and one[0][0] == slot]
    assert len(right) >= 0.93 * len(wanted)
    assert right == pytest.approx([0.9] * len(right), abs=0.01)
    for one in found:
        cosines = [cosine for _, cosine in one]
        assert cosines == sorted(cosines, reverse=True)


def test_strangers_are_not_near() -> None:
    index = filled(signatures(1000))
    found = [index.nearest(row, 4, 1) for row in signatures(200, seed=9)]
    assert sum(map(len, found)) < 2 * 200, "of 1000 that a full search would look at"
    assert all(cosine < 0.8 for one in found for _, cosine in one)


def test_a_lower_least_cosine_finds_what_is_farther() -> None:
    rows, rng = signatures(2000), np.random.default_rng(2)
    found = {}
    for least in (0.75, 0.4):
        index = SketchIndex(DIMS, len(rows), least)
        for slot, row in enumerate(rows):
            index.put(slot, row, 1)
        near = [index.nearest(turned(rows[slot], 0.7, rng), 4, 1) for slot in range(200)]
        found[least] = sum(bool(one) and one[0][0] == slot for slot, one in enumerate(near))
    assert found[0.75] < 0.5 * 200
    assert found[0.4] > 0.9 * 200


def test_of_many_that_are_near_the_nearest_come() -> None:
    rng = np.random.default_rng(3)
    (centre,) = signatures(1)
    cosines = np.linspace(0.9, 0.999, 400)
    index = filled(np.stack([turned(centre, cosine, rng) for cosine in cosines]))
    found = index.nearest(centre, 5, 1)
    assert len(found) == 5
    assert min(cosine for _, cosine in found) > 0.99


def test_another_space_neither_answers_nor_stands_in_the_way() -> None:
    (row,) = signatures(1)
    index = SketchIndex(DIMS, 200)
    for slot in range(199):
        index.put(slot, row, 1)
    index.put(199, row, 2)
    assert [slot for slot, _ in index.nearest(row, 4, 2)] == [199]
    assert index.nearest(row, 4, 3) == []


def test_what_is_dropped_or_replaced_is_not_found() -> None:
    rows = signatures(3)
    index = filled(rows)
    index.drop(0)
    index.put(1, rows[2], 1)
    assert index.nearest(rows[0], 4, 1) == []
    assert index.nearest(rows[1], 4, 1) == []
    assert sorted(slot for slot, _ in index.nearest(rows[2], 4, 1)) == [1, 2]
    index.put(0, rows[0], 1)
    assert [slot for slot, _ in index.nearest(rows[0], 4, 1)] == [0]


def test_an_empty_one_finds_nothing_and_memory_is_what_was_used() -> None:
    index = SketchIndex(DIMS, 1000)
    (row,) = signatures(1)
    assert index.nearest(row, 4, 1) == []
    empty = index.memory_bytes()
    for slot in range(10):
        index.put(slot, row, 1)
    assert 10 * DIMS < index.memory_bytes() - empty < 10 * (DIMS + 64)


def test_a_signature_of_another_length_is_refused() -> None:
    index = SketchIndex(DIMS, 10)
    with pytest.raises(ValueError, match="32 numbers"):
        index.nearest(np.ones(DIMS + 1, np.float32), 4, 1)
    with pytest.raises(ValueError, match="32 numbers"):
        index.put(0, np.ones(DIMS + 1, np.float32), 1)
