"""One computation for all who ask for the same text while it runs.

Who asks first begins a flight, others wait for it. A flight belongs to no caller: when the one who began it leaves
before its row is there, the flight is given up, and the first of those who wait begins the next. Everything here
belongs to one event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tandem.caching.base import Entry, Key


class Flight:
    """A text under way. ``keys`` are those it is found by; ``landed`` is set to its entry, or to None when it was given
    up."""

    __slots__ = ("keys", "landed", "on_queue", "what")

    def __init__(self, key: Key) -> None:
        self.keys = [key]
        self.landed: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self.what: object = None
        """The caller's own: what stands for it in the scheduler's queue, once something does."""
        self.on_queue: list[Callable[[], None]] = []
        """To be called then."""

    async def wait(self) -> Entry | None:
        """Its entry, or None when it was given up. Who is cancelled here leaves the flight alone."""
        return await asyncio.shield(self.landed)


class SingleFlight:
    """The flights under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[Key, Flight] = {}
        self.joined = 0
        """Texts that found another's flight."""

    def __len__(self) -> int:
        return len(self._flights)

    def find(self, key: Key) -> Flight | None:
        """The flight that ``key`` is on."""
        return self._flights.get(key)

    def begin(self, key: Key) -> Flight:
        """A new flight; none may be under way for ``key``."""
        flight = self._flights[key] = Flight(key)
        return flight

    def also(self, flight: Flight, key: Key) -> None:
        """``flight`` is found by ``key`` as well."""
        flight.keys.append(key)
        self._flights[key] = flight

    def land(self, flight: Flight, entry: Entry | None) -> None:
        """It has its entry, or None: it was given up. The first word counts."""
        if flight.landed.done():
            return
        flight.landed.set_result(entry)
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]
