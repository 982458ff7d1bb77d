"""The second level that a fleet shares: rows in Redis, each one value under the model's namespace and the row's key."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial

import msgspec
import numpy as np

from tandem.caching.base import Entry, Key
from tandem.caching.breaker import BreakerOptions
from tandem.caching.rack import Found, Kept, LevelOptions
from tandem.caching.record import Records
from tandem.caching.redis_wire import Wire
from tandem.caching.second_level import SecondLevel
from tandem.clock import Clock
from tandem.errors import ConfigError

# With the namespace and the key, 27 bytes: what is read over and over is not the place for long names.
_PREFIX = b"td:"
# Two: the second is on its way while the answer to the first is taken apart.
_READS = 2


class RedisOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``url``: redis://, rediss:// or unix://, as redis-py takes them.

    ``ttl_s``: how long a row is kept, None for as long as Redis likes. Each row's own is shorter by up to the share
    ``ttl_jitter``, drawn by ``seed``, so that what was written together does not end together. ``timeout_s``: the
    deadline of a read; with what is around it, a request pays 50 ms for a Redis that stops. ``backlog_rows``: how many
    rows may wait to be written.
    """

    url: str
    ttl_s: float | None = 7 * 86400.0
    ttl_jitter: float = 0.1
    timeout_s: float = 0.045
    backlog_rows: int = 8192
    seed: int = 0
    breaker: BreakerOptions = BreakerOptions()


def redis_store(options: RedisOptions, records: Records, clock: Clock) -> SecondLevel:
    """An ``EntryStore`` in Redis. Connects to nothing yet: a Redis that is down now may be up later.

    Raises ConfigError for options that make no sense, for a URL that leads nowhere, and without redis-py.
    """
    level = LevelOptions(
        timeout_s=options.timeout_s, backlog_rows=options.backlog_rows, calls=_READS, breaker=options.breaker
    )
    return SecondLevel("redis", RedisRack(options, records), level, clock)


class RedisRack:
    """Rows as values of Redis."""

    subject = "the Redis cache"

    def __init__(self, options: RedisOptions, records: Records) -> None:
        if not 0 <= options.ttl_jitter < 1:
            raise ConfigError("the jitter of the Redis cache's time to live is a share from 0 to below 1")
        if options.ttl_s is not None and options.ttl_s < 0.001:
            raise ConfigError("the Redis cache can not keep rows for less than a millisecond")
        self._wire = Wire(options.url)
        self.faults = self._wire.faults
        self.words = self._wire.words
        self._options = options
        self._records = records
        self._prefix = _PREFIX + records.namespace
        self._chance = np.random.default_rng(options.seed)

    def read(self, keys: Sequence[Key]) -> Awaitable[Found]:
        return self._wire.read([self._prefix + key for key in keys], partial(self._found, keys))

    async def write(self, keys: Sequence[Key], entries: Sequence[Entry]) -> Kept:
        encoded = zip(keys, self._records.encode(keys, entries), strict=True)
        rows = [(self._prefix + key, value) for key, value in encoded if value is not None]
        refused = await self._wire.write(rows, self._ttls_ms(len(rows))) if rows else []
        return Kept(written=len(rows) - len(refused), unfit=len(keys) - len(rows), refused=refused)

    async def clear(self, cursor: int) -> tuple[int, int]:
        return await self._wire.scan(self._prefix, cursor)

    async def ready(self) -> None:
        """It connects when it must."""

    async def close(self) -> None:
        await self._wire.close()

    def trouble(self) -> str:
        return ""

    def statistics(self) -> dict[str, float]:
        return {}

    def _found(self, keys: Sequence[Key], stored: Sequence[bytes | None]) -> Found:
        entries, faults = self._records.decode(keys, stored)
        return Found(entries, [*faults])

    def _ttls_ms(self, n: int) -> list[int | None]:
        if self._options.ttl_s is None:
            return [None] * n
        shares = 1.0 - self._options.ttl_jitter * self._chance.random(n)
        return [max(1, int(ttl_ms)) for ttl_ms in 1000 * self._options.ttl_s * shares]
