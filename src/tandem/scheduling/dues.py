"""Deadlines of what waits, by class: how much is due, and by when nearly all of it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from tandem.scheduling.base import Item
from tandem.types import Priority

# Of the texts that are due, so many are due by the time that counts: one far deadline says nothing of the others.
NEARLY_ALL = 0.9


class Dues:
    """Texts that have a deadline. Adding and removing cost what a sorted list of floats costs."""

    def __init__(self, items: Iterable[Item]) -> None:
        """``items``: what waits already."""
        self.tokens = [0] * len(Priority)
        self._deadlines: list[list[float]] = [[] for _ in Priority]
        for item in items:
            if item.group.deadline_s is not None:
                self.tokens[item.group.priority] += item.length
                self._deadlines[item.group.priority].append(item.group.deadline_s)
        for deadlines in self._deadlines:
            deadlines.sort()

    def __bool__(self) -> bool:
        return any(self.tokens)

    def add(self, priority: Priority, due_s: float, tokens: int) -> None:
        self.tokens[priority] += tokens
        insort(self._deadlines[priority], due_s)

    def remove(self, priority: Priority, due_s: float, tokens: int) -> None:
        """What was added before."""
        self.tokens[priority] -= tokens
        deadlines = self._deadlines[priority]
        del deadlines[bisect_left(deadlines, due_s)]

    def upto(self, priority: Priority) -> int:
        """Tokens due in this class and in those before it."""
        return sum(self.tokens[: priority + 1])

    def horizon_s(self, priority: Priority) -> float | None:
        """By when nearly all texts of a class are due; None when none is."""
        deadlines = self._deadlines[priority]
        return deadlines[int(NEARLY_ALL * (len(deadlines) - 1))] if deadlines else None
