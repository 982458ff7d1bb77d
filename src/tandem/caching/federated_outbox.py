"""What waits to be sent, and how sending goes on through failures."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from tandem.caching.breaker import Breaker
from tandem.clock import Clock

T = TypeVar("T")

log = logging.getLogger("tandem.caching")

# While Redis is away: how often to look whether it is time for another try. Nobody waits for it.
_TICK_S = 0.05
_AGAIN_S = 0.5


class Outbox(Generic[T]):
    """A bounded queue. Who puts in never waits; when it is full the oldest are dropped: a cache's newest entries are
    those that will be asked for."""

    def __init__(self, send: Callable[[list[T]], Awaitable[None]], *, entries: int, batch: int) -> None:
        """``send`` is given at most ``batch`` at once, and may raise OSError."""
        self.counters: Counter[str] = Counter()
        self._send = send
        self._batch = batch
        self._waiting: deque[T] = deque(maxlen=entries)
        # Taken out of the queue before they are sent, as the queue may drop its oldest meanwhile.
        self._sending: list[T] = []
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    def put(self, entry: T) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            self.counters["dropped"] += 1
        self._waiting.append(entry)
        self._filled.set()

    async def step(self) -> None:
        """Wait for entries, then send some. Raises OSError; the next call then sends them again."""
        if not self:
            self._filled.clear()
            await self._filled.wait()
        while self._waiting and len(self._sending) < self._batch:
            self._sending.append(self._waiting.popleft())
        await self._send(self._sending)
        self.counters["sent"] += len(self._sending)
        self._sending = []

    async def drain(self, timeout_s: float) -> None:
        """Send all that waits, for so long. Raises OSError."""
        async with asyncio.timeout(timeout_s):
            while self:
                await self.step()


async def end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel ``tasks`` until they have ended. A library in between may swallow a cancellation."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN_S)


def ended(task: asyncio.Task[Any]) -> None:
    """For a task that only a bug ends, which must be heard of."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s has ended", task.get_name(), exc_info=error)


async def persist(
    step: Callable[[], Awaitable[None]], breaker: Breaker, clock: Clock, failed: Callable[[OSError], None]
) -> None:
    """Step after step for ever; after an OSError, when the breaker says so. A step that is a probe must not wait for
    anything but the other side."""
    while True:
        if not breaker.closed and not breaker.probe(clock.now()):
            await asyncio.sleep(_TICK_S)
            continue
        try:
            await step()
        except OSError as error:
            failed(error)
            breaker.failed(f"fails: {error}", clock.now())
        else:
            breaker.succeeded(clock.now())
