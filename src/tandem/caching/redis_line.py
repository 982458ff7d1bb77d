"""One connection to a Redis, over which one question at a time goes and its answers come back.

An answer is handed on from where its bytes arrive: no stream, no lock, no task between the socket and the caller. On
loopback a bare protocol that only counts bytes reads a row in 18 microseconds; redis-py took 69 for it, this takes 26.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, TypeVar, cast

import msgspec

from tandem.caching.redis_reply import Answer, GarbledError, LoginRefusedError, RefusedError, Replies

T = TypeVar("T")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a Redis is, ``path`` for a Unix socket, and how one logs in; ``tls``: None for a connection in the
    clear."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tls: SSLContext | None = None


class Line(asyncio.Protocol):
    """``free`` is called when it has answered and may be asked again."""

    def __init__(self, free: Callable[[Line], None]) -> None:
        self._free = free
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is gone."""
        self._transport: asyncio.Transport | None = None
        self._replies = Replies()
        self._answers: list[Answer] = []
        self._wanted = 0
        self._turn: Callable[[list[Answer]], Any] = list
        self._asked: asyncio.Future[Any] | None = None

    @property
    def usable(self) -> bool:
        """Whether it may be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, command: bytes, wanted: int, turn: Callable[[list[Answer]], T]) -> asyncio.Future[T]:
        """Send ``command``, one or more; what ``turn`` makes of its ``wanted`` answers. The future may also fail with
        RefusedError, GarbledError and OSError. Who cancels it ends the connection: nobody else may read that answer."""
        asked: asyncio.Future[T] = self._loop.create_future()
        transport = self._transport
        if transport is None or transport.is_closing():
            asked.set_exception(ConnectionResetError("the connection was closed"))
            return asked
        self._asked, self._wanted, self._turn = asked, wanted, turn
        asked.add_done_callback(self._settled)
        transport.write(command)
        return asked

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No subclass of asyncio's, where uvloop made it.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._answers += self._replies.feed(data)
            if len(self._answers) < self._wanted:
                return
            asked = self._asked
            if asked is None or asked.done() or len(self._answers) > self._wanted:
                raise GarbledError("an answer to nothing")
            asked.set_result(self._turn(self._answers))
        except RefusedError as error:
            self._fail(error)
        except GarbledError as error:
            self._fail(error)
            self.abort()
        self._answers, self._asked = [], None

    def connection_lost(self, exc: Exception | None) -> None:
        words = str(exc) if exc else "it closed the connection"
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError(words))
        self.lost.set_result(None)

    def _settled(self, asked: asyncio.Future[Any]) -> None:
        if asked.cancelled():
            self.abort()
        elif self.usable:
            self._free(self)

    def _fail(self, error: Exception) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(error)


async def connect(address: Address, free: Callable[[Line], None]) -> Line:
    """A line on which one is logged in. Raises OSError, RefusedError, GarbledError."""
    loop = asyncio.get_running_loop()

    def line() -> Line:
        return Line(free)

    try:
        if address.path:
            _, made = await loop.create_unix_connection(line, address.path)
        else:
            # asyncio sets TCP_NODELAY by itself.
            _, made = await loop.create_connection(line, address.host, address.port, ssl=address.tls)
    except OSError:
        # A certificate that is refused is a ValueError, too.
        raise
    except ValueError as error:
        # A name that is none: an empty label, a zero byte.
        raise OSError(f"no such address: {error}") from error
    try:
        await _log_in(made, address)
    except BaseException:
        made.abort()
        raise
    return made


async def _log_in(line: Line, address: Address) -> None:
    if address.password or address.username:
        login = [address.username, address.password] if address.username else [address.password]
        try:
            await line.ask(command(b"AUTH", *map(str.encode, login)), 1, only)
        except RefusedError as error:
            raise LoginRefusedError(*error.args) from error
    if address.db:
        await line.ask(command(b"SELECT", b"%d" % address.db), 1, only)


def command(*words: bytes) -> bytes:
    """As Redis reads it."""
    return b"".join([b"*%d\r\n" % len(words), *[b"$%d\r\n%b\r\n" % (len(word), word) for word in words]])


def only(answers: list[Answer]) -> Answer:
    """The one answer. Raises RefusedError when that is a no."""
    (answer,) = answers
    if isinstance(answer, RefusedError):
        raise answer
    return answer
