from __future__ import annotations

import numpy as np

from tandem.caching.guards import read
from tandem.caching.near_anchors import Anchor, Anchors
from tandem.caching.near_sketches import SketchIndex

DIMS = 16


def anchor(number: int, space: str = "") -> Anchor:
    return Anchor(number.to_bytes(16, "big"), space, read(f"text {number}"))


def anchors(capacity: int = 4) -> Anchors:
    return Anchors(SketchIndex(DIMS, capacity), capacity)


def found(kept: Anchors, signature: np.ndarray[tuple[int], np.dtype[np.float32]], space: str = "") -> list[int]:
    return [int.from_bytes(one.key, "big") for one, _ in kept.nearest(signature, 10, space)]


ROWS = np.random.default_rng(0).standard_normal((20, DIMS)).astype(np.float32)


def test_the_ring_drops_the_oldest_and_what_was_removed_leaves_room_when_it_comes_round() -> None:
    kept = anchors(4)
    for number in range(6):
        kept.add(anchor(number), ROWS[0], [])
    assert sorted(found(kept, ROWS[0])) == [2, 3, 4, 5]
    assert kept.remove(anchor(3).key)
    assert not kept.remove(anchor(3).key)
    assert sorted(found(kept, ROWS[0])) == [2, 4, 5]
    for number in (6, 7):
        kept.add(anchor(number), ROWS[0], [])
    assert sorted(found(kept, ROWS[0])) == [4, 5, 6, 7]
    assert len(kept) == 4


def test_one_of_the_same_key_is_replaced() -> None:
    kept = anchors()
    for row in (ROWS[0], ROWS[1]):
        kept.add(anchor(1), row, [])
    assert len(kept) == 1
    assert found(kept, ROWS[0]) == []
    assert found(kept, ROWS[1]) == [1]


def test_without_a_signature_one_waits() -> None:
    kept = anchors()
    for number in range(3):
        kept.add(anchor(number), None, [number])
    kept.remove(anchor(0).key)
    assert found(kept, ROWS[1]) == []
    waiting = kept.waiting()
    assert waiting is not None
    one, ids = waiting
    assert ids == [1]
    kept.sign(one, ROWS[1])
    assert found(kept, ROWS[1]) == [1]
    kept.add(anchor(2), ROWS[2], [])
    assert kept.waiting() is None, "what was replaced waits no longer"


def test_one_that_is_removed_between_waiting_and_signing_stays_away() -> None:
    kept = anchors()
    kept.add(anchor(1), None, [1])
    waiting = kept.waiting()
    assert waiting is not None
    kept.remove(anchor(1).key)
    kept.sign(waiting[0], ROWS[1])
    assert found(kept, ROWS[1]) == []


def test_spaces_of_equal_hashes_are_told_apart() -> None:
    kept = anchors()
    kept.add(anchor(1, "a"), ROWS[0], [])
    kept._index.put(0, ROWS[0], hash("b"))
    assert found(kept, ROWS[0], "b") == []


def test_bytes_go_with_the_anchors() -> None:
    kept = anchors()
    empty = kept.memory_bytes()
    for number in range(3):
        kept.add(anchor(number), ROWS[number], [])
    assert kept.memory_bytes() > empty + 3 * 300
    kept.clear()
    assert len(kept) == 0
    assert found(kept, ROWS[0]) == []
    kept.add(anchor(9), ROWS[9], [])
    assert found(kept, ROWS[9]) == [9]
