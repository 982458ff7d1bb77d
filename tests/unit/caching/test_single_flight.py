"""Flights: found by any of their keys, landed once, given up without harm."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tandem.caching.base import Entry
from tandem.caching.single_flight import SingleFlight
from tandem.types import Tier

ENTRY = Entry(np.ones(4, np.float32), 3, Tier.FP32)


async def test_a_flight_is_found_until_it_has_landed() -> None:
    flights = SingleFlight()
    flight = flights.begin(b"text")
    flights.also(flight, b"tokens")
    assert flights.find(b"text") is flights.find(b"tokens") is flight
    flights.land(flight, ENTRY)
    assert flights.find(b"text") is flights.find(b"tokens") is None
    assert await flight.wait() is ENTRY
    assert len(flights) == 0


async def test_the_first_word_counts() -> None:
    flights = SingleFlight()
    flight = flights.begin(b"a")
    flights.land(flight, ENTRY)
    flights.land(flight, None)
    assert await flight.wait() is ENTRY


async def test_a_flight_that_ends_late_takes_no_later_one_along() -> None:
    flights = SingleFlight()
    first = flights.begin(b"a")
    flights.land(first, None)
    second = flights.begin(b"a")
    flights.land(first, ENTRY)
    assert flights.find(b"a") is second


async def test_who_stops_waiting_leaves_it_under_way() -> None:
    flights = SingleFlight()
    flight = flights.begin(b"a")
    waiting = asyncio.create_task(flight.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not flight.landed.cancelled()
    flights.land(flight, ENTRY)
    assert await flight.wait() is ENTRY
