"""Values of a federated cache: rows that lie in the second level anyway, or payloads of any kind in Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import msgspec

from tandem.caching.base import Entry, EntryStore, Key
from tandem.caching.breaker import Breaker, BreakerOptions
from tandem.caching.federated_board import within
from tandem.caching.federated_wire import Fault, Wire
from tandem.clock import Clock
from tandem.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis

V = TypeVar("V")


class Values(Protocol[V]):
    """Where the values of all instances lie. Every call ends by itself within a time of its own, and raises OSError
    for whatever is wrong with the other side."""

    async def get(self, keys: Sequence[Key]) -> list[V | None]:
        """One for each key, in order; None says that there is none for certain: the entry is then forgotten."""
        ...

    async def put(self, keys: Sequence[Key], values: Sequence[V]) -> None:
        """Keep them."""
        ...

    async def delete(self, keys: Sequence[Key]) -> None:
        """Forget them: who missed that they were removed shall not find them."""
        ...


class SharedStore(EntryStore, Protocol):
    """A second level that all instances share, and that can be waited for."""

    async def flush(self) -> None:
        """Wait until what was put is written, or given up."""
        ...


class StoreValues:
    """Rows in the second level. It answers trouble with None, as it does a miss; its state tells which it was."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store

    async def get(self, keys: Sequence[Key]) -> list[Entry | None]:
        found = await self._store.get(keys)
        if None in found:
            self._require()
        return found

    async def put(self, keys: Sequence[Key], values: Sequence[Entry]) -> None:
        await self._store.put(keys, values)
        # What is announced must be there when others look.
        await self._store.flush()
        self._require()

    async def delete(self, keys: Sequence[Key]) -> None:
        """They stay: a row is right for as long as its key is asked for, and to forget a neighbour makes it no wrong
        one."""

    def _require(self) -> None:
        state = self._store.state()
        if state != "ok":
            raise ConnectionError(f"{self._store.name}: {state}")


class ValuesOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``expire_s``: how long a value is kept. ``deadline_s``: how long a request waits for one, ``put_deadline_s`` how
    long a write may take, for which nobody waits. ``value_bytes``: the longest value."""

    expire_s: float = 86_400.0
    deadline_s: float = 0.05
    put_deadline_s: float = 0.5
    value_bytes: int = 1 << 20
    breaker: BreakerOptions = BreakerOptions()

    def __post_init__(self) -> None:
        if min(self.expire_s, self.deadline_s, self.put_deadline_s, self.value_bytes) <= 0:
            raise ConfigError("expire_s, deadlines and value_bytes of federated values are over 0")


class RedisValues:
    """Bytes in Redis, one key each, sealed so that a value under another key, another tenant's or a damaged one counts
    as none. With a secret in ``wire`` a forged one does, too."""

    def __init__(self, client: Redis, wire: Wire, options: ValuesOptions, clock: Clock) -> None:
        self.counters: Counter[str] = Counter()
        self.breaker = Breaker("Fetching federated values", options.breaker)
        self._client = client
        self._wire = wire
        self._options = options
        self._clock = clock
        self._prefix = b"tandem:fed:" + wire.scope.id().hex().encode() + b":value:"

    async def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Raises OSError at once while the breaker is open."""
        if not keys:
            return []
        if not self.breaker.closed and not self.breaker.probe(self._clock.now()):
            self.counters["refused"] += len(keys)
            raise ConnectionError(self.breaker.state(self._clock.now()))
        try:
            async with within(self._options.deadline_s):
                found = cast(list[bytes | None], await self._client.mget([self._prefix + key for key in keys]))
        except OSError as error:
            self.breaker.failed(f"fails: {error}", self._clock.now())
            self.counters["errors"] += 1
            raise
        except BaseException:
            # The request was cancelled: that says nothing of Redis.
            self.breaker.give_up()
            raise
        self.breaker.succeeded(self._clock.now())
        return [None if data is None else self._opened(key, data) for key, data in zip(keys, found, strict=True)]

    async def put(self, keys: Sequence[Key], values: Sequence[bytes]) -> None:
        """A value that is too long is left out and counted."""
        milliseconds = max(round(self._options.expire_s * 1000), 1)
        async with within(self._options.put_deadline_s):
            pipeline = self._client.pipeline(transaction=False)
            for key, value in zip(keys, values, strict=True):
                if len(value) > self._options.value_bytes:
                    self.counters["too_long"] += 1
                    continue
                pipeline.set(self._prefix + key, self._wire.value(key, value), px=milliseconds)
            await pipeline.execute()

    async def delete(self, keys: Sequence[Key]) -> None:
        async with within(self._options.put_deadline_s):
            await self._client.unlink(*[self._prefix + key for key in keys])

    def _opened(self, key: Key, data: bytes) -> bytes | None:
        value = self._wire.read_value(key, data, self._options.value_bytes)
        if isinstance(value, Fault):
            self.counters[f"rejected_{value}"] += 1
            return None
        return value
