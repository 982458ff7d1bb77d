"""A disk cache whose folder is taken away while it is in use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tandem.caching.disk import DiskOptions, disk_store
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tests.entry_rows import entries, keys, records, right


async def opened(folder: Path) -> SecondLevel:
    store = disk_store(DiskOptions(path=folder, max_bytes=4 << 20, timeout_s=60.0), records(), SystemClock())
    await store.ready()
    return store


async def put(store: SecondLevel, n: int, seed: int) -> list[bytes]:
    known = keys(n, seed)
    await store.put(known, entries(known))
    await store.flush()
    return known


@pytest.mark.parametrize("part", ["", "rows", "rows/data.mdb", "guard"])
async def test_a_folder_that_is_deleted_while_it_is_in_use(tmp_path: Path, part: str) -> None:
    folder = tmp_path / "cache"
    store = await opened(folder)
    before = await put(store, 50, 1)
    gone = folder / part
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert all(right(before, await store.get(before))), "who has it open keeps what he sees"
    after = await put(store, 50, 2)
    right(after, await store.get(after))
    await store.close()
    again = await opened(folder)
    assert again.state() == "ok"
    right(before, await again.get(before))
    more = await put(again, 50, 3)
    assert all(right(more, await again.get(more)))
    await again.close()


async def test_who_comes_after_a_deletion_shares_nothing_wrong_with_who_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = await opened(folder)
    before = await put(first, 50, 1)
    folder.rename(tmp_path / "elsewhere")
    second = disk_store(DiskOptions(path=folder / ".." / "cache", max_bytes=4 << 20), records(), SystemClock())
    await second.ready()
    assert not any(await second.get(before))
    mine = await put(second, 50, 2)
    assert all(right(mine, await second.get(mine)))
    assert all(right(before, await first.get(before)))
    await first.close()
    assert all(right(mine, await second.get(mine)))
    await second.close()
