"""Which batches a worker's process has, and when each is overdue. Plain and synchronous; ``now`` is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from tandem.types import TokenBatch
from tandem.workers.base import Done
from tandem.workers.slab import Cargo


class Flight(msgspec.Struct):
    """A batch between ``submit`` and its answer. ``due_s``: when it is overdue; None while others go first."""

    batch: TokenBatch
    on_done: Callable[[Done], None]
    cargo: Cargo
    due_s: float | None = None


class Ledger:
    """Batches in order: those that the process has, and those that wait here until it has room.

    The process gets twice as many as it has ``streams``, so that a stream finds its next batch there. It takes them in
    order, so the oldest ``streams`` of them are those that run; each must be answered within ``timeout_s``.
    """

    def __init__(self, streams: int, timeout_s: float) -> None:
        self._streams = streams
        self._timeout_s = timeout_s
        self._waiting: deque[Flight] = deque()
        self._there: dict[int, Flight] = {}

    def add(self, flight: Flight) -> None:
        self._waiting.append(flight)

    def next(self, now: float) -> Flight | None:
        """The flight to hand over now; None when none waits or the process has enough."""
        if not self._waiting or len(self._there) >= 2 * self._streams:
            return None
        flight = self._waiting.popleft()
        self._there[flight.cargo.job.number] = flight
        self._time(now)
        return flight

    def ended(self, number: int, now: float) -> Flight | None:
        """The flight whose job has ended; None when the process has no such job."""
        flight = self._there.pop(number, None)
        self._time(now)
        return flight

    def due_s(self) -> float | None:
        """When the first of those that run is overdue."""
        return min((flight.due_s for flight in self._there.values() if flight.due_s is not None), default=None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def clear(self) -> tuple[list[Flight], list[Flight]]:
        """What the process has, and what waits, each in order; the ledger is empty then."""
        there, waiting = list(self._there.values()), list(self._waiting)
        self._there.clear()
        self._waiting.clear()
        return there, waiting

    def _time(self, now: float) -> None:
        for flight in islice(self._there.values(), self._streams):
            if flight.due_s is None:
                flight.due_s = now + self._timeout_s


class RestartOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The first restart is at once; the next waits ``first_s``, each after it twice as long, ``most_s`` at most. A
    process that has served for ``good_s`` starts the count anew."""

    first_s: float = 0.5
    most_s: float = 30.0
    good_s: float = 5.0


class Restarts:
    """How long to wait before a process is started again."""

    def __init__(self, options: RestartOptions) -> None:
        self._options = options
        self._in_a_row = 0

    def delay_s(self, served_s: float) -> float:
        """``served_s``: how long the one that ended had served."""
        o = self._options
        if served_s >= o.good_s:
            self._in_a_row = 0
        self._in_a_row += 1
        # Capped before the power: it may go on failing for weeks.
        return 0.0 if self._in_a_row == 1 else min(o.most_s, o.first_s * 2.0 ** min(self._in_a_row - 2, 60))
