"""One HTTP request as handlers see it: its headers, its body within limits, and whether its client is still there."""

from __future__ import annotations

import asyncio
import zlib
from types import TracebackType

import msgspec

from tandem.errors import InvalidInput, Overloaded, PayloadTooLarge
from tandem.server.base import COMPLETE, JSON, WHOLE, Receive, Scope, WholeReply
from tandem.server.errors import ClientLeft, SlowClient, UnsupportedMedia

# A request shorter than this ends before its client's departure could save any work, so nothing watches for it:
# a watcher is a task, and a task costs as much as decoding the body.
WATCH_AFTER_S = 0.02


class BodyPool:
    """Counts the bytes of all bodies that are being read, on all connections."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0

    def take(self, size: int) -> None:
        """Raises Overloaded beyond the limit; what was taken is given back all the same."""
        self._held += size
        if self._held > self._limit:
            raise Overloaded(f"bodies of more than {self._limit} bytes in all are being read", retry_after_s=1.0)

    def give_back(self, size: int) -> None:
        self._held -= size


class Limits(msgspec.Struct, frozen=True):
    """How much body a request may have, how long its client may take to send it, and what all bodies share."""

    body_bytes: int
    body_s: float
    pool: BodyPool


class Request:
    """A request in flight. ``started_s`` is the monotonic time at which its headers were complete, ``computed_s`` that
    at which its embeddings were ready; 0 before. ``texts`` and ``tokens`` count what was embedded.
    ``body_bytes`` were taken from the pool.
    """

    __slots__ = (
        "_receive",
        "_scope",
        "body_bytes",
        "computed_s",
        "headers",
        "id",
        "method",
        "path",
        "similarity",
        "source",
        "started_s",
        "tenant",
        "texts",
        "tokens",
    )

    def __init__(self, scope: Scope, receive: Receive, request_id: str, started_s: float) -> None:
        self._receive = receive
        self._scope = scope
        self.id = request_id
        self.started_s = started_s
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.body_bytes = 0
        self.computed_s = 0.0
        self.texts = 0
        self.tokens = 0
        self.tenant = ""
        self.source = b""
        self.similarity: float | None = None

    def take_whole(self) -> WholeReply | None:
        """How to answer in one piece, where that can be. It is taken out of the scope: it knows what holds the scope,
        and such rings are the collector's work."""
        return self._scope.pop(WHOLE, None) if self.method != "HEAD" else None

    @property
    def client(self) -> str:
        """The client's address, empty where there is none."""
        client = self._scope.get("client")
        return f"{client[0]}:{client[1]}" if client else ""

    async def body(self, limits: Limits) -> bytes:
        """The whole body, inflated if it came compressed.

        Raises PayloadTooLarge (announced, received or inflated), SlowClient, ClientLeft, UnsupportedMedia.
        """
        self._refuse_other_media()
        announced = self.headers.get(b"content-length")
        if announced is not None and announced.isdigit() and int(announced) > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        body: bytes | None = self._scope.pop(COMPLETE, None)
        if body is not None:
            self._take(len(body), len(body), limits)
            return self._inflated(body, limits.body_bytes)
        try:
            async with asyncio.timeout(limits.body_s):
                body = await self._read(limits)
        except TimeoutError:
            raise SlowClient(f"the body did not arrive within {limits.body_s:g} s") from None
        return self._inflated(body, limits.body_bytes)

    def watch(self) -> Departure:
        """A context in which the client's departure raises ClientLeft. Enter it when the body has been read."""
        return Departure(self._receive)

    async def _read(self, limits: Limits) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft("the client left before its body was complete")
            part = message.get("body", b"")
            size += len(part)
            self._take(len(part), size, limits)
            more = message.get("more_body", False)
            if not more and not parts:
                return part  # type: ignore[no-any-return]
            parts.append(part)
            if not more:
                return b"".join(parts)

    def _take(self, more: int, size: int, limits: Limits) -> None:
        """``more`` bytes have come and make ``size``."""
        if size > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        self.body_bytes = size
        limits.pool.take(more)

    def _refuse_other_media(self) -> None:
        # A missing type passes: many small clients send none. A wrong one does not: it is a mistake, or a web page
        # that posts a form across origins, which browsers allow without asking.
        media = self.headers.get(b"content-type")
        if media is None or media == JSON:
            return
        kind = media.split(b";", 1)[0].strip().lower()
        if kind != JSON and not kind.endswith(b"+json"):
            shown = kind.decode("latin-1")
            raise UnsupportedMedia(f"the body's Content-Type must be application/json, not {shown[:200]!r}")

    def _inflated(self, body: bytes, limit: int) -> bytes:
        encoding = self.headers.get(b"content-encoding")
        if encoding is None:
            return body
        encoding = encoding.strip().lower()
        if encoding in (b"identity", b""):
            return body
        if encoding not in (b"gzip", b"x-gzip"):
            shown = encoding.decode("latin-1")
            raise UnsupportedMedia(f"Content-Encoding {shown[:200]!r} is not supported; send gzip or none")
        inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            plain = inflater.decompress(body, limit + 1)
        except zlib.error as error:
            raise InvalidInput(f"the body is not valid gzip: {error}") from None
        # The limit holds for what comes out: a few kilobytes of gzip can hold gigabytes.
        if len(plain) > limit:
            raise _too_large(limit)
        if not inflater.eof:
            raise InvalidInput("the body is not valid gzip: it ends too early")
        return plain


class Departure:
    """Cancels the task that entered it when the client leaves, and turns that into ClientLeft.

    The engine sees an ordinary cancellation, and drops the texts that have not run.
    """

    __slots__ = ("_cancelled_before", "_left", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a request is handled in a task"
        self._task = task
        self._cancelled_before = task.cancelling()
        self._timer = task.get_loop().call_later(WATCH_AFTER_S, self._start)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # As asyncio.timeout does: only our own cancellation is translated, someone else's passes through.
        if self._left and self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
            raise ClientLeft("the client left before its answer was ready") from None

    def _start(self) -> None:
        self._watcher = self._task.get_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than the limit of {limit} bytes")
