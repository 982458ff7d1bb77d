"""Several processes on one disk cache, and processes that are killed in the midst of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tandem.caching.disk import DiskOptions, disk_store
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tests.conftest import REPOSITORY
from tests.disk_child import BATCH
from tests.entry_rows import DIMS, entries, keys, records, right

SMALL = 4 << 20
WIDE = 384


@contextmanager
def writer(folder: Path, seed: int, dims: int = DIMS) -> Iterator[subprocess.Popen[str]]:
    """A process that writes as fast as it can, until it is killed."""
    command = [sys.executable, "-m", "tests.disk_child", str(folder), str(seed), str(SMALL), str(dims)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY) as process:
        try:
            yield process
        finally:
            process.kill()


def written(process: subprocess.Popen[str], rows: int) -> int:
    """Wait until it has written so many; returns how many."""
    assert process.stdout is not None
    for line in process.stdout:
        count, _, state = line.strip().partition(" ")
        assert state == "ok", line
        if int(count) >= rows:
            return int(count)
    raise AssertionError(f"it ended with {process.wait()}")


async def opened(folder: Path, dims: int = DIMS) -> SecondLevel:
    store = disk_store(DiskOptions(path=folder, max_bytes=SMALL, timeout_s=60.0), records(dims=dims), SystemClock())
    await store.ready()
    assert store.state() == "ok"
    return store


async def test_a_kill_in_the_midst_of_writing_loses_no_row_that_was_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(3):
        with writer(tmp_path, seed) as process:
            count = written(process, 100 + 37 * seed)
        store = await opened(tmp_path)
        known = keys(count + 10 * BATCH, seed)
        found = right(known, await store.get(known))
        assert all(found[:count]), "committed is committed"
        await store.close()
    assert "damaged" not in caplog.text


async def test_two_processes_share_rows_while_both_write(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    with writer(tmp_path, 7) as process:
        mine = keys(600, seed=8)
        for start in range(0, 600, 20):
            some = mine[start : start + 20]
            await store.put(some, entries(some))
            await store.flush()
        count = written(process, 300)
        theirs = keys(count, 7)
        assert all(right(theirs, await store.get(theirs)))
        assert all(right(mine, await store.get(mine)))
        process.send_signal(signal.SIGSTOP)
        assert all(right(mine, await store.get(mine))), "readers wait for nobody"
        process.kill()
        process.wait()
        more = keys(300, seed=9)
        await store.put(more, entries(more))
        await store.flush()
        assert all(right(more, await store.get(more))), "its lock went with it"
    assert store.state() == "ok"
    await store.close()


async def test_a_file_that_was_cut_off_while_others_use_it_is_not_touched(tmp_path: Path) -> None:
    with writer(tmp_path, 4) as process:
        written(process, 300)
        process.send_signal(signal.SIGSTOP)
        data = tmp_path / "rows" / "data.mdb"
        with data.open("r+b") as file:
            file.truncate(data.stat().st_size // 2)
        store = disk_store(DiskOptions(path=tmp_path, max_bytes=SMALL, timeout_s=60.0), records(), SystemClock())
        await store.ready()
        assert "was cut off while others used it" in store.state()
        assert await store.get(keys(5, 4)) == [None] * 5
        await store.close()


async def test_two_processes_stay_within_one_limit(tmp_path: Path) -> None:
    with writer(tmp_path, 1, WIDE) as first, writer(tmp_path, 2, WIDE) as second:
        written(first, 1500)
        written(second, 1500)
    store = await opened(tmp_path, WIDE)
    assert 500 < store.statistics()["entries"] < 2500
    assert (tmp_path / "rows" / "data.mdb").stat().st_size <= SMALL
    await store.close()
