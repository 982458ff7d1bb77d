"""The few commands that a cache asks of Redis, over redis-py. Values are bytes; keys have a prefix of our own.

A single server, or whatever looks like one: a cluster would spread the keys of one MGET over its nodes, and refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tandem.errors import ConfigError

_SCAN_KEYS = 1000
_KNOWN = frozenset({"host", "port", "db", "username", "password", "path", "connection_class"})
_MOST_WORDS = 200


class Wire:
    """Redis at ``url``. Connects when first asked, and again when it must; has no deadline but for connecting."""

    def __init__(self, url: str, connections: int, connect_timeout_s: float) -> None:
        """At most ``connections`` at once. Raises ConfigError for a URL that leads nowhere, or without redis-py."""
        try:
            from redis import exceptions
            from redis.asyncio import Redis
        except ImportError as error:
            raise ConfigError(f"a Redis cache needs the package redis (pip install redis): {error}") from error
        self._exceptions = exceptions
        self.faults: tuple[type[Exception], ...] = (exceptions.RedisError, OSError, asyncio.TimeoutError)
        """All that a command may raise, CancelledError apart."""
        self._pool = _pool(url, connections, connect_timeout_s)
        self._redis: Any = Redis(connection_pool=self._pool)

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key; None where there is none, or one of another type than a string."""
        answer = await self._redis.execute_command("MGET", *keys)
        # Whatever is at the other end, it may not even be Redis.
        if not isinstance(answer, list) or len(answer) != len(keys):
            raise self._exceptions.InvalidResponse("no answer to MGET")
        return [value if isinstance(value, bytes) else None for value in answer]

    async def write(self, rows: Sequence[tuple[bytes, bytes]], ttls_ms: Sequence[int | None]) -> list[str]:
        """Set each key to its value with its time to live, in one round trip; what was refused, in words."""
        pipeline = self._redis.pipeline(transaction=False)
        for (key, value), ttl_ms in zip(rows, ttls_ms, strict=True):
            pipeline.execute_command("SET", key, value, *(() if ttl_ms is None else ("PX", ttl_ms)))
        answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, self._exceptions.ConnectionError):
                raise answer
        return [self.words(answer) for answer in answers if isinstance(answer, Exception)]

    async def scan(self, prefix: bytes, cursor: int) -> tuple[int, int]:
        """Delete those keys of a part of all keys that begin with ``prefix``; the next cursor, 0 after the last part,
        and how many were deleted. A scan passes over everybody's keys: there is no index of ours to keep in step."""
        pattern = b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]\\^-" else bytes((byte,)) for byte in prefix) + b"*"
        try:
            answer = await self._redis.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_KEYS)
            following, keys = int(answer[0]), [key for key in answer[1] if key.startswith(prefix)]
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._exceptions.InvalidResponse("no answer to SCAN") from error
        if keys:
            await self._redis.execute_command("UNLINK", *keys)
        return following, len(keys)

    async def close(self) -> None:
        await self._pool.disconnect(inuse_connections=True)

    def words(self, error: Exception) -> str:
        """What is wrong, to go on after "it"."""
        known = self._exceptions
        if isinstance(error.__cause__, known.RedisError):
            # A refused login, for one, comes wrapped as a failure to connect.
            error = error.__cause__
        text = " ".join(str(error).split())[:_MOST_WORDS].rstrip(".")
        if isinstance(error, known.AuthenticationError | known.AuthorizationError):
            return f"refuses our login: {text}"
        if isinstance(error, known.BusyLoadingError):
            return "is still loading its data"
        if isinstance(error, known.ReadOnlyError):
            return "is a replica, which can not be written to"
        if isinstance(error, known.OutOfMemoryError):
            return "is out of memory: raise its maxmemory, or give it an eviction policy such as allkeys-lru"
        if isinstance(error, known.InvalidResponse):
            return f"does not speak like a Redis: {text}"
        if isinstance(error, known.ConnectionError | OSError):
            return f"can not be reached: {text}"
        return f"answers {text!r}"


def _pool(url: str, connections: int, connect_timeout_s: float) -> Any:
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    named = _parsed(url)
    ours: dict[str, Any] = {
        "max_connections": connections,
        "timeout": None,
        # The caller's deadline is the only one: one within would cost a task for each read, and say the same.
        "socket_timeout": None,
        # Closing waits for this long too.
        "socket_connect_timeout": connect_timeout_s,
        # A connection that the server closed while it was idle is made anew at once.
        "retry": Retry(NoBackoff(), 1),
        # RESP3 has nothing for us, and costs a round trip before the first command, as does telling our name.
        "protocol": 2,
        "driver_info": None,
    }
    pool: Any = BlockingConnectionPool(**named, **ours)
    try:
        pool.make_connection()
    except (TypeError, ValueError) as error:
        raise ConfigError("the URL of the Redis cache has an option that does not go with its scheme") from error
    return pool


def _parsed(url: str) -> dict[str, Any]:
    """No message here repeats the URL, nor what a parser says of it: a password may be in any part of it."""
    from redis.asyncio.connection import parse_url

    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("the URL of the Redis cache must begin with redis://, rediss:// or unix://")
    try:
        parts = urlsplit(url)
        named: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise ConfigError(
            f"the URL of the Redis cache can not be read; it is like {scheme}://:password@host:6379/0, "
            "special characters of a password written as %XX"
        ) from error
    unknown = sorted(name for name in named if name not in _KNOWN and not name.startswith("ssl_"))
    if unknown:
        raise ConfigError(f"the URL of the Redis cache has options that are not known here: {', '.join(unknown)}")
    if scheme == "unix":
        if not named.get("path"):
            raise ConfigError("the URL of the Redis cache has no path: unix:///run/redis.sock")
    elif not parts.hostname:
        raise ConfigError(f"the URL of the Redis cache names no host: {scheme}://host:6379/0")
    elif parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise ConfigError(f"the URL of the Redis cache ends in the number of a database: {scheme}://host:6379/0")
    return named
