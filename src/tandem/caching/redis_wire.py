"""The few commands that a cache asks of Redis. Values are bytes; keys have a prefix of our own.

A single server, or whatever looks like one: a cluster would spread the keys of one MGET over its nodes, and refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar, cast

from tandem.caching.redis_line import Line, command, connect, only
from tandem.caching.redis_reply import Answer, GarbledError, LoginRefusedError, RefusedError
from tandem.caching.redis_url import address_of

T = TypeVar("T")
Values: TypeAlias = "list[bytes | None]"

_SCAN_KEYS = 1000
_MOST_WORDS = 200
# Two reads, a write, a probe and a scan. More may be in use at a time; no more wait for the next.
_MOST_IDLE = 5


class Wire:
    """Redis at ``url``. Connects when first asked, and again when it must; has no deadline: that is its caller's.

    What is asked goes over a line that is idle, the last used first. One that the server has closed meanwhile is known
    to be closed, as the event loop has seen that; only who asks in that very turn of the loop gets an error for it.
    """

    faults: tuple[type[Exception], ...] = (RefusedError, GarbledError, OSError, asyncio.TimeoutError)
    """All that a command may raise, CancelledError apart."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that leads nowhere, or without redis-py, which reads it."""
        self._address = address_of(url)
        self._idle: list[Line] = []
        self._lines: set[Line] = set()

    def read(self, keys: Sequence[bytes], turn: Callable[[Values], T]) -> asyncio.Future[T]:
        """What ``turn`` makes of the value of each key; None where there is none, or one of another type than a string.
        Who cancels the future ends the connection."""
        return self._ask(command(b"MGET", *keys), partial(_read, len(keys), turn))

    async def write(self, rows: Sequence[tuple[bytes, bytes]], ttls_ms: Sequence[int | None]) -> list[str]:
        """Set each key to its value with its time to live, in one round trip; what was refused, in words."""
        commands = [
            command(b"SET", key, value) if ttl_ms is None else command(b"SET", key, value, b"PX", b"%d" % ttl_ms)
            for (key, value), ttl_ms in zip(rows, ttls_ms, strict=True)
        ]
        line = self._free_line() or await self._new_line()
        answers = await line.ask(b"".join(commands), len(commands), list)
        return [self.words(answer) for answer in answers if isinstance(answer, RefusedError)]

    async def scan(self, prefix: bytes, cursor: int) -> tuple[int, int]:
        """Delete those keys of a part of all keys that begin with ``prefix``; the next cursor, 0 after the last part,
        and how many were deleted. A scan passes over everybody's keys: there is no index of ours to keep in step."""
        pattern = b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]\\^-" else bytes((byte,)) for byte in prefix) + b"*"
        asked = command(b"SCAN", b"%d" % cursor, b"MATCH", pattern, b"COUNT", b"%d" % _SCAN_KEYS)
        following, keys = await self._ask(asked, _scanned)
        ours = [key for key in keys if key.startswith(prefix)]
        if ours:
            await self._ask(command(b"UNLINK", *ours), only)
        return following, len(ours)

    async def close(self) -> None:
        for line in self._lines:
            line.abort()
        if self._lines:
            await asyncio.wait([line.lost for line in self._lines])

    def words(self, error: Exception) -> str:
        """What is wrong, to go on after "it"."""
        text = " ".join(str(error).split())[:_MOST_WORDS].rstrip(".")
        code = text.partition(" ")[0] if isinstance(error, RefusedError) else ""
        if code == "LOADING":
            return "is still loading its data"
        if isinstance(error, LoginRefusedError) or code in ("NOAUTH", "WRONGPASS"):
            return f"refuses our login: {text}"
        if code == "READONLY":
            return "is a replica, which can not be written to"
        if code == "OOM":
            return "is out of memory: raise its maxmemory, or give it an eviction policy such as allkeys-lru"
        if isinstance(error, GarbledError):
            return f"does not speak like a Redis: {text}"
        if isinstance(error, OSError):
            return f"can not be reached: {text}"
        return f"answers {text!r}"

    def _ask(self, asked: bytes, turn: Callable[[list[Answer]], T]) -> asyncio.Future[T]:
        line = self._free_line()
        if line is not None:
            return line.ask(asked, 1, turn)
        return asyncio.get_running_loop().create_task(self._ask_anew(asked, turn))

    async def _ask_anew(self, asked: bytes, turn: Callable[[list[Answer]], T]) -> T:
        line = await self._new_line()
        return await line.ask(asked, 1, turn)

    def _free_line(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.usable:
                return line
        return None

    async def _new_line(self) -> Line:
        line = await connect(self._address, self._free)
        self._lines.add(line)
        line.lost.add_done_callback(partial(self._gone, line))
        return line

    def _free(self, line: Line) -> None:
        # One that logs in is not ours yet.
        if line in self._lines:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(line)
            else:
                line.abort()

    def _gone(self, line: Line, lost: asyncio.Future[None]) -> None:
        """What has become of one has most likely become of those that lie idle, too: where a router has forgotten them
        all, each would cost a deadline to find that out."""
        self._lines.discard(line)
        for other in self._idle:
            other.abort()
        self._idle.clear()


def _read(n: int, turn: Callable[[Values], T], answers: list[Answer]) -> T:
    answer = only(answers)
    # Whatever is at the other end, it may not even be Redis.
    if not isinstance(answer, list) or len(answer) != n:
        raise GarbledError("no answer to MGET")
    return turn([value if isinstance(value, bytes) else None for value in answer])


def _scanned(answers: list[Answer]) -> tuple[int, list[bytes]]:
    match only(answers):
        case [bytes(cursor), list(keys)] if cursor.isdigit() and all(isinstance(key, bytes) for key in keys):
            return int(cursor), cast("list[bytes]", keys)
        case _:
            raise GarbledError("no answer to SCAN")
