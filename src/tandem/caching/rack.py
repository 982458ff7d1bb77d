"""The contract of what lies behind a second level: a Redis, a disk."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from tandem.caching.base import Entry, Key
from tandem.caching.breaker import BreakerOptions


class Found(msgspec.Struct, frozen=True):
    """``entries``: one for each key; ``rejected``: a word for each that was there and is not right."""

    entries: list[Entry | None]
    rejected: list[str]


class Kept(msgspec.Struct, frozen=True):
    """How many rows were ``written`` and how many must not be (``unfit``); ``refused``: the store's words for each that
    it would not take."""

    written: int
    unfit: int = 0
    refused: list[str] = []


class Rack(Protocol):
    """Where the rows lie. Its calls raise nothing but ``faults``, and may take as long as they like.

    ``read`` is no coroutine, so that none has to be made a task of: what it returns is a future where a row is
    microseconds away. Who does not wait any more cancels it.
    """

    subject: str
    """As in "the Redis cache"."""
    faults: tuple[type[Exception], ...]

    def read(self, keys: Sequence[Key]) -> Awaitable[Found]: ...

    async def write(self, keys: Sequence[Key], entries: Sequence[Entry]) -> Kept: ...

    async def clear(self, cursor: int) -> tuple[int, int]:
        """Delete some rows of this model: from cursor 0 on; the next cursor, 0 at the end, and how many went."""
        ...

    async def ready(self) -> None:
        """Returns when it can be used, or is known not to be usable."""
        ...

    async def close(self) -> None: ...

    def words(self, error: Exception) -> str:
        """What is wrong, to go on after "it"."""
        ...

    def trouble(self) -> str:
        """Why it can not be used at present, "" when it can."""
        ...

    def statistics(self) -> dict[str, float]: ...


class LevelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``timeout_s``: the deadline of a read. ``backlog_rows`` may wait to be written, in batches of ``batch_rows``.
    ``calls``: reads at a time."""

    timeout_s: float
    backlog_rows: int = 8192
    batch_rows: int = 64
    calls: int = 2
    breaker: BreakerOptions = BreakerOptions()
