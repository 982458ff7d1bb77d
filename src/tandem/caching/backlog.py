"""What waits to be written to a second level: off the path of requests, bounded, in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from tandem.caching.base import Entry, Key

Write = Callable[[list[Key], list[Entry]], Awaitable[None]]


class Backlog:
    """Hands batches to ``write``, one after the other, as long as there are any. ``write`` must not raise.

    What does not fit is dropped and counted, the newest first: to make room by dropping the oldest would drop what has
    waited longest to be of use.
    """

    def __init__(self, write: Write, rows: int, batch_rows: int) -> None:
        """At most ``rows`` wait; a batch has at most ``batch_rows``."""
        self._write = write
        self._rows = rows
        self._batch_rows = batch_rows
        self._waiting: deque[tuple[Key, Entry]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, keys: Sequence[Key], entries: Sequence[Entry]) -> None:
        """From the event loop; returns at once."""
        room = 0 if self._closed else max(0, self._rows - len(self._waiting))
        self._waiting.extend(islice(zip(keys, entries, strict=True), room))
        self.dropped += max(0, len(keys) - room)
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def flushed(self) -> None:
        """Wait until nothing waits."""
        while self._task is not None and not self._task.done():
            # The waiter may be cancelled; the writing goes on.
            await asyncio.shield(self._task)

    async def close(self, timeout_s: float) -> None:
        """Write what waits, for so long; the rest is dropped. Idempotent."""
        self._closed = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        self.dropped += len(self._waiting)
        self._waiting.clear()

    async def _drain(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._batch_rows, len(self._waiting)))]
            await self._write([key for key, _ in batch], [entry for _, entry in batch])
