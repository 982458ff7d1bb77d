"""Where instances write for each other: one bounded stream and a few named blobs. In service that is Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from tandem.caching.federated_wire import START, StreamId
from tandem.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis


class View(msgspec.Struct, frozen=True):
    """The ``first`` and the ``last`` entry that are there, ``START`` twice when there are none; whether the entry that
    was asked about is there."""

    first: StreamId
    last: StreamId
    holds: bool


class Board(Protocol):
    """Every call ends by itself within a time of the implementation's own, and raises OSError for whatever is wrong
    with the other side; what was written may be there even so."""

    async def append(self, entries: Sequence[bytes]) -> None:
        """Put entries at the end of the stream, in order; old ones fall off its other end."""
        ...

    async def read(self, after: StreamId, count: int, wait_s: float) -> list[tuple[StreamId, bytes]]:
        """The next at most ``count`` entries after that one. Where there are none, it waits so long for one."""
        ...

    async def view(self, place: StreamId) -> View:
        """The stream as it is, all of it at one moment."""
        ...

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Blobs by name, in order."""
        ...

    async def put(self, blobs: Mapping[str, bytes], expire_s: float) -> None:
        """Keep blobs for so long, if nobody replaces them."""
        ...

    async def expire(self, names: Sequence[str], expire_s: float) -> None:
        """Keep them for so long and no longer."""
        ...

    async def claim(self, name: str, holder: bytes, expire_s: float) -> bool:
        """Whether ``name`` was free; it is ours for so long if it was."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


class BoardOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``stream_entries``: about so many are kept. ``expire_s``: a stream that nobody writes to is gone after so long.
    ``deadline_s``: how long one call may take, waiting for entries apart."""

    stream_entries: int = 100_000
    expire_s: float = 7 * 86_400.0
    deadline_s: float = 0.5

    def __post_init__(self) -> None:
        if min(self.stream_entries, self.expire_s, self.deadline_s) <= 0:
            raise ConfigError("a board's stream_entries, expire_s and deadline_s are over 0")


def connect(url: str, deadline_s: float = 0.5) -> Redis:
    """A client for ``RedisBoard`` and ``RedisValues``: it connects within ``deadline_s``, answers in bytes and tries
    nothing twice. Raises ConfigError without the redis package, or for a URL that is none."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise ConfigError("a federated cache needs the redis package: pip install redis") from error
    try:
        # redis-py's own retries would triple a deadline, and hide from the loops above that something is wrong. Its own
        # timeout of a socket would be a wait_for, which in Python 3.11 can swallow a cancellation: a deadline's, too.
        return Redis.from_url(
            url, socket_timeout=None, socket_connect_timeout=deadline_s, retry=Retry(NoBackoff(), 0), protocol=2
        )
    except ValueError as error:
        raise ConfigError(f"not a Redis URL: {error}") from error


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Whatever goes wrong with Redis inside, or takes longer, is an OSError."""
    from redis.exceptions import RedisError

    try:
        async with asyncio.timeout(seconds):
            yield
    except RedisError as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} s") from error


class RedisBoard:
    """A board in Redis 5 or later, without modules. All its keys lie in one slot of a cluster."""

    def __init__(self, client: Redis, scope_id: bytes, options: BoardOptions) -> None:
        self._client = client
        self._options = options
        self._prefix = f"tandem:fed:{{{scope_id.hex()}}}:"
        self._stream = self._prefix + "stream"

    async def append(self, entries: Sequence[bytes]) -> None:
        async with within(self._options.deadline_s):
            pipeline = self._client.pipeline(transaction=False)
            for entry in entries:
                # About: Redis then drops whole blocks of entries, which costs it nothing.
                pipeline.xadd(self._stream, {b"a": entry}, maxlen=self._options.stream_entries, approximate=True)
            pipeline.pexpire(self._stream, _milliseconds(self._options.expire_s))
            await pipeline.execute()

    async def read(self, after: StreamId, count: int, wait_s: float) -> list[tuple[StreamId, bytes]]:
        # To Redis, BLOCK 0 is for ever.
        block = max(_milliseconds(wait_s), 1)
        async with within(self._options.deadline_s + wait_s):
            reply = await self._client.xread({self._stream: _text(after)}, count=count, block=block)
        return [_entry(*entry) for entry in _entries(reply)]

    async def view(self, place: StreamId) -> View:
        async with within(self._options.deadline_s):
            pipeline = self._client.pipeline(transaction=True)
            # XINFO would say more, but what it says differs from version to version.
            pipeline.xrange(self._stream, count=1)
            pipeline.xrevrange(self._stream, count=1)
            pipeline.xrange(self._stream, _text(place), _text(place))
            first, last, there = await pipeline.execute()
        if not first or not last:
            return View(START, START, holds=False)
        return View(_entry(*first[0])[0], _entry(*last[0])[0], holds=bool(there))

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        async with within(self._options.deadline_s):
            return cast(list[bytes | None], await self._client.mget([self._prefix + name for name in names]))

    async def put(self, blobs: Mapping[str, bytes], expire_s: float) -> None:
        async with within(self._options.deadline_s):
            pipeline = self._client.pipeline(transaction=False)
            for name, blob in blobs.items():
                pipeline.set(self._prefix + name, blob, px=_milliseconds(expire_s))
            await pipeline.execute()

    async def expire(self, names: Sequence[str], expire_s: float) -> None:
        async with within(self._options.deadline_s):
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.pexpire(self._prefix + name, _milliseconds(expire_s))
            await pipeline.execute()

    async def claim(self, name: str, holder: bytes, expire_s: float) -> bool:
        async with within(self._options.deadline_s):
            return bool(await self._client.set(self._prefix + name, holder, px=_milliseconds(expire_s), nx=True))

    async def close(self) -> None:
        """The client is its owner's."""


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """What XREAD found, in either version of Redis' protocol."""
    if not reply:
        return []
    streams = list(reply.values()) if isinstance(reply, dict) else [found for _, found in reply]
    found = streams[0]
    # Version 3 has the entries in one more list.
    return found[0] if found and isinstance(found[0], list) else found


def _entry(entry_id: bytes, fields: dict[bytes, bytes] | None) -> tuple[StreamId, bytes]:
    """Somebody else's entry has no field of ours, and reads as no bytes."""
    milliseconds, _, number = entry_id.partition(b"-")
    return (int(milliseconds), int(number)), (fields or {}).get(b"a", b"")


def _text(entry_id: StreamId) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
