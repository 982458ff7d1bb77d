"""Rows on their way from one index into another, while the first is searched and written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from tandem.vectors.base import Codes, Ids, Index
from tandem.vectors.turns import Turns

_SEED = 7
# Rows moved between two looks at whether to stop.
_STEP = 256
# What changed during a move is moved again, and what changed during that; so many rows with writers held up.
_FEW = 64
_ROUNDS = 8


class Target(Protocol):
    """Where rows go."""

    def add_stored(self, ids: Ids, codes: Codes) -> None: ...

    def remove(self, ids: Ids) -> int: ...


class Move:
    """The owner of ``source`` calls ``note`` under ``lock`` before each change of it, from before ``run`` on. So what
    ``run`` has read before a change is read again after it."""

    def __init__(self, source: Index, target: Target, lock: Turns) -> None:
        self._source = source
        self._target = target
        self._lock = lock
        self._changed: set[int] = set()

    def note(self, ids: Ids) -> None:
        """These are about to change."""
        self._changed.update(ids.tolist())

    def run(self, stopped: Callable[[], bool], swap: Callable[[], None]) -> bool:
        """Move all, then call ``swap`` under the lock, at a moment when both hold the same. Whether it got there."""
        # In any order, so that the first few that a new graph sees are like all.
        ids = np.random.default_rng(_SEED).permutation(self._source.ids())
        for start in range(0, len(ids), _STEP):
            if stopped():
                return False
            self._target.add_stored(*self._source.stored(ids[start : start + _STEP]))
        for _ in range(_ROUNDS):
            with self._lock:
                if len(self._changed) <= _FEW:
                    break
                changed, self._changed = self._changed, set()
            if stopped():
                return False
            self._again(changed)
        with self._lock:
            self._again(self._changed)
            swap()
        return True

    def _again(self, changed: set[int]) -> None:
        ids = np.array(sorted(changed), np.int64)
        self._target.remove(ids)
        self._target.add_stored(*self._source.stored(ids))
