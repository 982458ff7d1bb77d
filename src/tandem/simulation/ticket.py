"""What a simulated request waits by."""

from __future__ import annotations


class Ticket:
    """Stands in for a request's future: a million of asyncio's own would take most of the time."""

    __slots__ = ("answered", "index", "is_done")

    def __init__(self, index: int, answered: list[Ticket]) -> None:
        self.index = index
        self.answered = answered
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _: None) -> None:
        self.is_done = True
        self.answered.append(self)

    def set_exception(self, _: BaseException) -> None:
        """It stays unanswered, which the driver counts."""
        self.is_done = True
