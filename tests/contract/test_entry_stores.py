"""What every second level must do, on a real Redis and on a real disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import pytest

from tandem.caching.base import Entry
from tandem.caching.disk import DiskOptions, disk_store
from tandem.caching.record import Records
from tandem.caching.redis import RedisOptions, redis_store
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tandem.types import Tier
from tests.entry_rows import DIMS, OTHER_MODEL, entries, keys, records, right
from tests.redis_server import RedisServer

# Far beyond what it takes: a test of what is kept is none of how soon.
PATIENCE_S = 30.0

Make: TypeAlias = Callable[[Records], SecondLevel]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        yield server


@pytest.fixture(params=["redis", "disk"])
async def make(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> AsyncIterator[Make]:
    """Stores over the same rows."""
    made: list[SecondLevel] = []

    def make(form: Records) -> SecondLevel:
        if request.param == "redis":
            made.append(redis_store(RedisOptions(url=server.url, timeout_s=PATIENCE_S), form, SystemClock()))
        else:
            made.append(disk_store(DiskOptions(path=tmp_path, timeout_s=PATIENCE_S), form, SystemClock()))
        return made[-1]

    yield make
    for store in made:
        await store.ready()
        await store.clear()
        await store.close()


@pytest.fixture
async def store(make: Make) -> SecondLevel:
    store = make(records())
    await store.ready()
    return store


async def test_what_was_put_is_found_in_the_order_asked(store: SecondLevel) -> None:
    known, unknown = keys(6), keys(3, seed=1)
    assert right(known, await store.get(known)) == [False] * 6
    await store.put(known, entries(known))
    await store.flush()
    asked = [known[3], unknown[0], known[0], known[3], unknown[1], known[5]]
    assert right(asked, await store.get(asked)) == [True, False, True, True, False, True]
    counts = store.statistics()
    assert (counts["hits"], counts["misses"], counts["written"]) == (4, 8, 6)
    assert store.state() == "ok"


async def test_nothing_asked_nothing_found(store: SecondLevel) -> None:
    assert await store.get([]) == []
    await store.put([], [])
    await store.flush()


async def test_a_later_row_takes_the_place_of_an_earlier_one(store: SecondLevel) -> None:
    known = keys(2)
    old = [Entry(row=np.full(DIMS, 7.0, np.float32), tokens=1, tier=Tier.FP32)] * 2
    await store.put(known, old)
    await store.flush()
    await store.put(known[:1], entries(known[:1]))
    await store.flush()
    first, second = await store.get(known)
    assert right(known[:1], [first]) == [True]
    assert second is not None
    assert second.row.tolist() == [7.0] * DIMS


async def test_long_lists_and_many_callers(store: SecondLevel) -> None:
    known = keys(1500)
    await store.put(known, entries(known))
    await store.flush()
    assert all(right(known, await store.get(known)))
    parts = [known[start : start + 7] for start in range(0, 1500, 7)]
    found = await asyncio.gather(*(store.get(part) for part in parts))
    assert all(all(right(part, got)) for part, got in zip(parts, found, strict=True))


async def test_a_caller_who_leaves_costs_the_others_nothing(store: SecondLevel) -> None:
    known = keys(64)
    await store.put(known, entries(known))
    await store.flush()
    tasks = [asyncio.create_task(store.get([key])) for key in known]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    left = await asyncio.gather(*tasks[1::2])
    assert all(right([key], found) == [True] for key, found in zip(known[1::2], left, strict=True))
    assert all(right(known, await store.get(known)))


async def test_a_row_is_the_callers_own(store: SecondLevel) -> None:
    known = keys(1)
    await store.put(known, entries(known))
    await store.flush()
    (first,) = await store.get(known)
    assert first is not None
    first.row[:] = 0.0
    assert right(known, await store.get(known)) == [True]


async def test_models_share_a_store_and_no_row(store: SecondLevel, make: Make) -> None:
    other = make(records(OTHER_MODEL))
    await other.ready()
    known = keys(300)
    await store.put(known, entries(known))
    await store.flush()
    assert not any(await other.get(known))
    await other.put(known[:5], entries(known[:5]))
    await other.flush()
    assert await store.clear() == ""
    assert not any(await store.get(known))
    assert right(known[:6], await other.get(known[:6])) == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("form", "fault"), [(records(codec="int8"), "codec"), (records(dims=DIMS + 1), "length")], ids=["codec", "dims"]
)
async def test_rows_of_another_form_are_misses(store: SecondLevel, make: Make, form: Records, fault: str) -> None:
    other = make(form)
    await other.ready()
    known = keys(4)
    await other.put(known, entries(known, form.dims))
    await other.flush()
    assert await store.get(known) == [None] * 4
    assert store.statistics()[f"rejected_{fault}"] == 4
    await store.put(known, entries(known))
    await store.flush()
    assert all(right(known, await store.get(known))), "and are written over"


async def test_what_is_not_finite_is_not_kept(store: SecondLevel) -> None:
    known = keys(3)
    rows = entries(known)
    bad = Entry(row=np.full(DIMS, np.nan, np.float32), tokens=1, tier=Tier.FP32)
    await store.put(known, [rows[0], bad, rows[2]])
    await store.flush()
    assert right(known, await store.get(known)) == [True, False, True]
    assert store.statistics()["unfit"] == 1


async def test_what_is_put_is_there_for_who_comes_after(make: Make) -> None:
    known = keys(40)
    first = make(records())
    await first.ready()
    await first.put(known, entries(known))
    await first.close()
    second = make(records())
    await second.ready()
    assert all(right(known, await second.get(known))), "closing wrote what waited"


async def test_closed_it_is_a_miss_and_no_error(store: SecondLevel) -> None:
    known = keys(2)
    await store.put(known, entries(known))
    await store.close()
    assert await store.get(known) == [None, None]
    await store.put(known, entries(known))
    await store.flush()
    assert await store.clear() == "is closed"
    await store.close()
    assert store.state() == "closed"
    assert store.statistics()["dropped"] == 2
