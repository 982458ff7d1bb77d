"""Calls with a deadline that does not blame others for a late event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from tandem.clock import Clock

T = TypeVar("T")

STALL_S = 0.005
"""Later than this, and it is our event loop that was late."""


class Calls:
    """Calls of one event loop, each ended when it is too late."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: set[asyncio.Future[Any]] = set()

    async def within(self, seconds: float, call: Awaitable[T]) -> T:
        """What ``call`` returns. Raises what it raises, and TimeoutError."""
        task = asyncio.ensure_future(call)
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            if await arrived([task], seconds, self._clock):
                return task.result()
            raise TimeoutError
        finally:
            if not task.done():
                # With it goes what an answer would still come through: nobody else may read that answer.
                task.cancel()

    async def close(self, timeout_s: float) -> None:
        """Wait for those that were ended and still clean up."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=timeout_s)

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._running.discard(call)
        if not call.cancelled():
            # Looked at here, as nobody waits any more for one that was too late.
            call.exception()


async def arrived(futures: Iterable[asyncio.Future[Any]], timeout_s: float, clock: Clock) -> bool:
    """Whether all are done within ``timeout_s``. Where the event loop stood still meanwhile, it gets that time back: an
    answer may lie there unread, and to give up on it would be to blame who sent it."""
    pending = {future for future in futures if not future.done()}
    if not pending:
        return True
    started_s = clock.now()
    _, pending = await asyncio.wait(pending, timeout=timeout_s)
    stalled_s = clock.now() - started_s - timeout_s
    if pending and stalled_s > STALL_S:
        _, pending = await asyncio.wait(pending, timeout=min(stalled_s, timeout_s))
    return not pending
