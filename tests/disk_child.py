"""Writes rows to a disk cache until it is ended: ``python -m tests.disk_child FOLDER SEED BYTES DIMS``. Not a test.

One line for each batch that is committed: how many rows so far, from the seed's sequence of keys.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tandem.caching.disk import DiskOptions, disk_store
from tandem.clock import SystemClock
from tests.entry_rows import entries, keys, records

MOST = 20_000
BATCH = 20


async def main(folder: Path, seed: int, max_bytes: int, dims: int) -> None:
    options = DiskOptions(path=folder, max_bytes=max_bytes, timeout_s=60.0)
    store = disk_store(options, records(dims=dims), SystemClock())
    await store.ready()
    known = keys(MOST, seed)
    for start in range(0, MOST, BATCH):
        some = known[start : start + BATCH]
        await store.put(some, entries(some, dims))
        await store.flush()
        counts = store.statistics()
        print(int(counts["written"]), store.state(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
