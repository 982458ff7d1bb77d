"""What people said of texts: which two mean the same. For ``bench/semantic_verified.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.semantic_cache import intents_of, question_pairs


class Judge:
    """What people said of two questions, and what follows from it."""

    def __init__(self, pairs: Sequence[tuple[bool, str, str]], texts: Sequence[str]) -> None:
        place = {text: index for index, text in enumerate(texts)}
        known = [pair for pair in pairs if pair[1] in place and pair[2] in place]
        self._said = {frozenset((place[first], place[second])): same for same, first, second in known}
        self._group = list(range(len(texts)))
        for pair, same in self._said.items():
            if same:
                first, second = (*pair, *pair)[:2]
                self._group[self._root(first)] = self._root(second)
        self._apart = {frozenset(map(self._root, pair)) for pair, same in self._said.items() if not same}

    def right(self, first: int, second: int) -> bool | None:
        """None where nobody judged."""
        said = self._said.get(frozenset((first, second)))
        if said is not None:
            return said
        groups = frozenset((self._root(first), self._root(second)))
        return True if len(groups) == 1 else (False if groups in self._apart else None)

    def groups(self) -> list[int]:
        """Of each text one that stands for all that mean the same."""
        return [self._root(index) for index in range(len(self._group))]

    def _root(self, index: int) -> int:
        while self._group[index] != index:
            self._group[index] = self._group[self._group[index]]
            index = self._group[index]
        return index


class Intents:
    """People gave each text an intent: an answer is right if it was given to the same."""

    def __init__(self, intents: Sequence[str]) -> None:
        self._intents = intents

    def right(self, first: int, second: int) -> bool | None:
        return self._intents[first] == self._intents[second]


def judge_of(name: str, data: Path, texts: Sequence[str]) -> Judge | Intents:
    if name == "qqp":
        return Judge(question_pairs(data), texts)
    intents = intents_of(name, data)
    return Intents([intents[text] for text in texts])


def half_of(texts: Sequence[str], data: Path, half: int) -> list[int]:
    """Places of the texts in one half, 0 or 1, of QQP. Questions that a chain of labelled pairs connects, whatever the
    labels say, are in the same half, so what is known of one half says nothing of the other's pairs."""
    chains = Judge([(True, first, second) for _, first, second in question_pairs(data)], texts).groups()
    side = np.random.default_rng(0).integers(2, size=len(texts))
    return [place for place in range(len(texts)) if side[chains[place]] == half]
