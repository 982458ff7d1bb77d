"""A lock that is taken in turn."""

from __future__ import annotations

from collections import deque
from threading import Lock
from types import TracebackType


class Turns:
    """As ``threading.Lock`` in a ``with``, but first come, first served. ``waiting``: who stands in line.

    A thread that adds a million rows gives the lock back after each few. With a plain lock it has it again before a
    waiting search has woken up, and the search may wait for seconds; here it is handed to who waits longest.
    """

    def __init__(self) -> None:
        self._books = Lock()
        self._taken = False
        self.waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._books:
            if not self._taken:
                self._taken = True
                return
            turn = Lock()
            turn.acquire()
            self.waiting.append(turn)
        turn.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._books:
            if self.waiting:
                self.waiting.popleft().release()
            else:
                self._taken = False
