"""A disk cache keeps within its bounds, forgets in time, and outlives whatever becomes of its file."""

from __future__ import annotations

import logging
import os
import resource
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import lmdb
import numpy as np
import pytest

from tandem.caching.base import Key
from tandem.caching.breaker import BreakerOptions
from tandem.caching.disk import DiskOptions, disk_store
from tandem.caching.second_level import SecondLevel
from tandem.clock import ManualClock, SystemClock
from tandem.errors import ConfigError
from tests.entry_rows import DIMS, MODEL, entries, keys, records, right

SMALL = 4 << 20
WIDE = 384
PATIENCE_S = 60.0


class Calendar(ManualClock):
    """A clock whose calendar can be set, back too."""

    def __init__(self, date_s: float) -> None:
        super().__init__()
        self.date_s = date_s

    def wall(self) -> float:
        return self.date_s


@asynccontextmanager
async def opened(
    folder: Path, clock: ManualClock | None = None, ttl_s: float | None = None, dims: int = DIMS
) -> AsyncIterator[SecondLevel]:
    at_once = BreakerOptions(first_s=0.0, most_s=0.0)
    options = DiskOptions(path=folder, max_bytes=SMALL, ttl_s=ttl_s, timeout_s=PATIENCE_S, breaker=at_once)
    store = disk_store(options, records(dims=dims), clock or SystemClock())
    await store.ready()
    try:
        yield store
    finally:
        await store.close()


async def fill(store: SecondLevel, n: int = 200, seed: int = 0, dims: int = DIMS) -> list[Key]:
    known = keys(n, seed)
    await store.put(known, entries(known, dims))
    await store.flush()
    return known


async def test_rows_outlive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        known = await fill(store)
    for _ in range(2):
        async with opened(tmp_path) as store:
            assert all(right(known, await store.get(known)))
            assert store.statistics()["entries"] == 200


async def test_it_stays_within_its_bytes_and_the_oldest_go_first(tmp_path: Path) -> None:
    async with opened(tmp_path, dims=WIDE) as store:
        known = await fill(store, 5000, dims=WIDE)
        counts = store.statistics()
        assert (counts["written"], counts["refused"], counts["errors"]) == (5000, 0, 0)
        kept = right(known, await store.get(known))
        assert counts["entries"] == sum(kept) > 1000
        assert all(kept[kept.index(True) :]), "what came later stayed"
        for _ in range(3):
            await store.put(known[:1000], entries(known[:1000], WIDE))
            await store.flush()
        assert all(right(known[:1000], await store.get(known[:1000])))
        assert store.statistics()["refused"] == 0
    assert (tmp_path / "rows" / "data.mdb").stat().st_size <= SMALL


async def test_a_calendar_that_jumps_costs_misses_and_makes_no_row_immortal(tmp_path: Path) -> None:
    calendar = Calendar(1_000_000.0)
    async with opened(tmp_path, calendar, ttl_s=100.0) as store:
        known = await fill(store, 10)
        for date_s, there in [
            (1_000_000.0, True),
            (1_000_099.9, True),
            (1_000_100.1, False),
            (9_000_000.0, False),
            (999_999.0, False),
            (0.0, False),
            (-5.0, False),
        ]:
            calendar.date_s = date_s
            assert right(known, await store.get(known)) == [there] * 10, date_s
        assert store.statistics()["rejected_stale"] == 50
        calendar.date_s = 500.0
        await store.put(known, entries(known))
        await store.flush()
        assert all(right(known, await store.get(known))), "written anew under the calendar as it is"
        calendar.date_s = 601.0
        assert not any(await store.get(known))


async def test_a_stamp_that_was_changed_makes_no_row_live_longer(tmp_path: Path) -> None:
    calendar = Calendar(1_000_000.0)
    async with opened(tmp_path, calendar, ttl_s=100.0) as store:
        known = await fill(store, 4)
    with lmdb.open(str(tmp_path / "rows"), max_dbs=2) as env, env.begin(write=True) as txn:
        rows = env.open_db(b"rows", txn=txn)
        value = txn.get(MODEL + known[0], db=rows)
        assert value is not None
        later = (2_000_000_000).to_bytes(8, "little")
        txn.put(MODEL + known[0], value[:8] + later + value[16:], db=rows)
        txn.put(MODEL + known[1], b"short", db=rows)
    calendar.date_s = 2_000_000.0
    async with opened(tmp_path, calendar, ttl_s=100.0) as store:
        assert not any(await store.get(known))
        assert store.statistics()["rejected_damage"] == 1


def scribble(data: Path, seed: int) -> None:
    """Rubbish over a few places of the file."""
    chance = np.random.default_rng(seed)
    size = data.stat().st_size
    with data.open("r+b") as file:
        for _ in range(int(chance.integers(1, 6))):
            file.seek(int(chance.integers(0, size)))
            file.write(chance.bytes(int(chance.integers(1, 3000))))


def cut(data: Path, seed: int) -> None:
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size // (2 + seed))


def empty(data: Path, seed: int) -> None:
    data.write_bytes(b"")


def rubbish(data: Path, seed: int) -> None:
    data.write_bytes(np.random.default_rng(seed).bytes(50_000))


def old(data: Path, seed: int) -> None:
    """Another program's LMDB file."""
    shutil.rmtree(data.parent)
    with lmdb.open(str(data.parent)) as env, env.begin(write=True) as txn:
        txn.put(b"their", b"own")


@pytest.mark.parametrize(
    ("damage", "seed"),
    [*((scribble, seed) for seed in range(5)), (cut, 0), (cut, 1), (empty, 0), (rubbish, 0), (old, 0)],
)
async def test_a_damaged_file_costs_its_rows_and_one_line(
    tmp_path: Path, damage: Callable[[Path, int], None], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tandem.caching")
    async with opened(tmp_path) as store:
        known = await fill(store, 400)
    damage(tmp_path / "rows" / "data.mdb", seed)
    async with opened(tmp_path) as store:
        assert store.state() == "ok"
        right(known, await store.get(known))
        await fill(store, 400, seed=5)
        assert all(right(keys(400, 5), await store.get(keys(400, 5))))
        assert store.state() == "ok"
    assert len(caplog.records) <= 1
    assert all("was damaged and begins anew" in record.getMessage() for record in caplog.records)
    assert sorted(os.listdir(tmp_path)) == ["guard", "left", "rows"], "nothing is left of it"


async def test_what_is_done_to_the_file_while_it_is_open_is_found_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as store:
        known = await fill(store, 400)
        data = tmp_path / "rows" / "data.mdb"
        with data.open("r+b") as file:
            # The heads of some pages that are not read again before it is closed.
            for page in range(1, 20):
                file.seek(-4096 * page, 2)
                file.write(b"x" * 16)
    async with opened(tmp_path) as store:
        right(known, await store.get(known))
        assert store.state() == "ok"
    assert "was damaged" in caplog.text


async def test_a_lock_file_of_rubbish_is_made_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        known = await fill(store)
    (tmp_path / "rows" / "lock.mdb").write_bytes(b"rubbish" * 1000)
    async with opened(tmp_path) as store:
        assert all(right(known, await store.get(known)))


async def test_a_full_disk_is_read_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opened(tmp_path) as store:
        known = await fill(store)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
            await fill(store, 2000, seed=2)
            assert store.state().startswith("reads only: fails: "), store.state()
            assert store.statistics()["refused"] > 0
            assert all(right(known, await store.get(known)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        more = await fill(store, 500, seed=3)
        assert store.state() == "ok"
        assert all(right(more, await store.get(more)))
    assert caplog.text.count("is given up for now") >= 1


async def test_a_folder_that_can_not_be_used_is_a_miss_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    async with opened(tmp_path / "file" / "cache") as store:
        assert store.state().startswith("can not be used: ")
        known = await fill(store, 3)
        assert await store.get(known) == [None] * 3
        assert (await store.clear()).startswith("can not be used: ")
        counts = store.statistics()
        assert (counts["skipped"], counts["dropped"], counts["errors"]) == (3, 3, 0)
    assert caplog.text.count("can not be used: ") == 2, "at the start, and when it was to be cleared"


async def test_before_it_is_open_all_are_misses(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        known = await fill(store, 3)
    store = disk_store(DiskOptions(path=tmp_path, max_bytes=SMALL), records(), SystemClock())
    assert store.state() in ("is being opened", "ok")
    assert len(await store.get(known)) == 3
    await store.close()
    assert store.state() == "closed"


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for options in (
        DiskOptions(path=tmp_path, max_bytes=1000),
        DiskOptions(path=tmp_path, ttl_s=0.0),
        DiskOptions(path=tmp_path, timeout_s=0.0),
    ):
        with pytest.raises(ConfigError):
            disk_store(options, records(), ManualClock())
    with pytest.raises(ConfigError, match="too small for rows"):
        disk_store(DiskOptions(path=tmp_path, max_bytes=SMALL), records(dims=60_000), ManualClock())


async def test_one_folder_has_one_limit(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(ConfigError, match="with another limit"):
            disk_store(DiskOptions(path=tmp_path, max_bytes=2 * SMALL), records(), SystemClock())
