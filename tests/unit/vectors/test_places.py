"""Where rows lie: a dict's answers for an eighth of its bytes."""

from __future__ import annotations

import numpy as np

from tandem.vectors.base import NOTHING
from tandem.vectors.places import Places


def test_places_are_those_that_a_dict_would_give() -> None:
    rng = np.random.default_rng(4)
    places, model = Places(), dict[int, int]()
    for turn in range(400):
        ids = rng.choice(3000, rng.integers(1, 40), replace=False) * (1 << 40)
        gone = rng.random() < 0.3
        at = np.full(len(ids), NOTHING) if gone else rng.integers(0, 1 << 30, len(ids))
        places.put(ids, at)
        model.update(zip(ids.tolist(), at.tolist(), strict=True))
        if turn % 20 == 0:
            asked = np.arange(3000) * (1 << 40)
            assert places.find(asked).tolist() == [model.get(one, NOTHING) for one in asked.tolist()]


def test_many_take_twelve_bytes_each() -> None:
    places = Places()
    for start in range(0, 100_000, 10_000):
        places.put(np.arange(start, start + 10_000), np.arange(10_000))
    assert places.nbytes < 14 * 100_000


def test_nothing_is_anywhere_at_first() -> None:
    assert Places().find(np.array([0, 7])).tolist() == [NOTHING, NOTHING]
    assert Places().find(np.empty(0, np.int64)).tolist() == []
