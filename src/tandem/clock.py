"""The only place where time comes from. Everything else is handed a ``Clock``.

The scheduler core takes ``now`` as an argument; its shells hold a clock. Simulation and tests pass a
``ManualClock``, so the code under test is the code that serves.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings: a monotonic one for intervals, the calendar for what people read."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean something."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clocks."""

    # Static: time.perf_counter costs 40 ns, a Python frame around it doubles that.
    now = staticmethod(time.perf_counter)
    wall = staticmethod(time.time)


class ManualClock:
    """A clock that stands still until told. For tests and simulation."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        return self._now_s

    def wall(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move time on by ``seconds`` >= 0; raises ValueError for less, as time does not go back."""
        if seconds < 0:
            raise ValueError(f"time goes forward only, got {seconds} s")
        self._now_s += seconds
