"""A store that hangs, fails or refuses costs its rows and nobody's time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from tandem.caching.base import Entry, Key
from tandem.caching.breaker import BreakerOptions
from tandem.caching.rack import Found, Kept, LevelOptions
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tandem.errors import ConfigError
from tests.entry_rows import entries, keys, right


class Shed:
    """Rows in a dictionary, and whatever trouble a test wants."""

    subject = "the shed"
    faults: tuple[type[Exception], ...] = (OSError, asyncio.TimeoutError)

    def __init__(self) -> None:
        self.rows: dict[Key, Entry] = {}
        self.reads = 0
        self.read_fault: OSError | None = None
        self.refuses = ""
        self.why = ""
        self.reading, self.writing, self.closing = (asyncio.Event() for _ in range(3))
        for may in (self.reading, self.writing, self.closing):
            may.set()

    async def read(self, keys: Sequence[Key]) -> Found:
        self.reads += 1
        await self.reading.wait()
        if self.read_fault:
            raise self.read_fault
        return Found([self.rows.get(key) for key in keys], [])

    async def write(self, keys: Sequence[Key], entries: Sequence[Entry]) -> Kept:
        await self.writing.wait()
        if self.refuses:
            return Kept(written=0, refused=[self.refuses] * len(keys))
        self.rows.update(zip(keys, entries, strict=True))
        return Kept(written=len(keys))

    async def clear(self, cursor: int) -> tuple[int, int]:
        gone = len(self.rows)
        self.rows.clear()
        return 0, gone

    async def ready(self) -> None:
        """It always is."""

    async def close(self) -> None:
        await self.closing.wait()

    def words(self, error: Exception) -> str:
        return f"fails: {error}"

    def trouble(self) -> str:
        return self.why

    def statistics(self) -> dict[str, float]:
        return {"entries": float(len(self.rows))}


def level(shed: Shed, timeout_s: float = 60.0) -> SecondLevel:
    at_once = BreakerOptions(first_s=0.0, most_s=0.0)
    return SecondLevel("shed", shed, LevelOptions(timeout_s=timeout_s, breaker=at_once), SystemClock())


async def fill(store: SecondLevel, n: int = 4) -> list[Key]:
    known = keys(n)
    await store.put(known, entries(known))
    await store.flush()
    return known


async def until_ok(store: SecondLevel) -> None:
    """Go on asking until it is well."""
    async with asyncio.timeout(60):
        while store.state() != "ok":
            await store.get(keys(1, seed=9))
            await asyncio.sleep(0)


async def test_a_read_that_hangs_is_a_miss_and_the_next_is_not_made() -> None:
    shed = Shed()
    store = level(shed, timeout_s=0.01)
    known = await fill(store)
    shed.reading.clear()
    assert await store.get(known) == [None] * 4
    assert store.state().startswith("breaker open: did not answer within 10 ms")
    asked = shed.reads
    assert await store.get(known) == [None] * 4, "and a probe goes out beside it"
    assert await store.get(known) == [None] * 4
    for _ in range(5):
        await asyncio.sleep(0)
    assert shed.reads == asked + 1
    shed.reading.set()
    await until_ok(store)
    assert all(right(known, await store.get(known)))
    await store.close()


async def test_a_read_that_fails_is_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tandem.caching")
    shed = Shed()
    store = level(shed)
    known = await fill(store)
    shed.read_fault = OSError("no such shed")
    found = await asyncio.gather(*(store.get(known) for _ in range(50)))
    assert found == [[None] * 4] * 50
    assert "fails: no such shed" in store.state()
    shed.read_fault = None
    await until_ok(store)
    assert all(right(known, await store.get(known)))
    counts = store.statistics()
    assert counts["hits"] + counts["misses"] >= 204
    assert counts["breaker_opened"] == 1
    assert len(caplog.records) == 2, "one line for each change"
    await store.close()


async def test_who_refuses_to_be_written_to_is_read() -> None:
    shed = Shed()
    store = level(shed)
    known = await fill(store)
    shed.refuses = "is full"
    await fill(store, 8)
    assert store.state().startswith("reads only: is full")
    assert all(right(known, await store.get(known)))
    shed.refuses = ""
    await fill(store, 8)
    assert store.state() == "ok", "each batch is a trial"
    assert store.statistics()["refused"] == 8
    await store.close()


async def test_a_write_that_hangs_says_nothing_of_reads() -> None:
    shed = Shed()
    store = level(shed, timeout_s=0.01)
    known = await fill(store)
    shed.writing.clear()
    await fill(store, 8)
    assert store.state().startswith("reads only: did not answer within 40 ms")
    assert all(right(known, await store.get(known)))
    assert store.statistics()["dropped"] == 8
    shed.writing.set()
    await fill(store, 8)
    assert store.state() == "ok"
    await store.close()


async def test_a_store_in_trouble_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    shed = Shed()
    store = level(shed)
    known = await fill(store)
    shed.why = "is being opened"
    assert store.state() == "is being opened"
    assert await store.get(known) == [None] * 4
    await fill(store, 3)
    await store.clear()
    assert "the shed could not be cleared, as it is being opened" in caplog.text
    assert (shed.reads, store.statistics()["skipped"], store.statistics()["dropped"]) == (0, 4, 3)
    shed.why = ""
    assert all(right(known, await store.get(known)))
    await store.close()


async def test_closing_does_not_wait_for_a_store_that_hangs() -> None:
    shed = Shed()
    store = level(shed, timeout_s=0.01)
    known = await fill(store)
    for may in (shed.reading, shed.writing, shed.closing):
        may.clear()
    reading = [asyncio.create_task(store.get(known)) for _ in range(20)]
    await asyncio.sleep(0)
    await store.put(known, entries(known))
    await store.close()
    assert await asyncio.gather(*reading) == [[None] * 4] * 20
    assert store.state() == "closed"


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="the shed needs a timeout"):
        SecondLevel("shed", Shed(), LevelOptions(timeout_s=0.0), SystemClock())
