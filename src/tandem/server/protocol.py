"""uvicorn's HTTP as Tandem runs it: less done a request, and a limit on headers, which uvicorn has not.

A hit in memory costs about as much as what carries it, so what carries it is worth a look (wrk, 64 connections):

- a body that comes with its headers is handed over in the scope, not piece by piece with a timer;
- a reply whose headers are all ours is sent in one piece, unchecked; uvicorn checks each header with two expressions;
- no timer a request for clients that idle: the sweep that looks for slow ones finds them too (``lifecycle.py``).

Rejected: to run a request without a task until it first waits for something. It is 250 bytecodes less, and took 5 us
longer: 64 requests parsed and then 64 answered find their code in the processor's cache, each by itself does not.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tandem.server.base import COMPLETE, WHOLE
from tandem.server.one_write import OneWriteTransport

MAX_HEADER_BYTES = 64 * 1024
"""Of one request: its target and all its header lines."""

_TOO_MUCH = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class LeanProtocol(HttpToolsProtocol):
    """The parser holds one header line until it ends, so what arrives while headers are awaited counts too."""

    # Lines that every reply has, the date among them; uvicorn makes the list anew each second.
    _always: tuple[list[tuple[bytes, bytes]] | None, bytes] = (None, b"")
    _chunk_bytes = 0
    _awaited_bytes = 0
    _in_head = True
    _in_message = False
    _at_head = False
    _begun: tuple[RequestResponseCycle, Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(OneWriteTransport(transport, self.loop))

    def data_received(self, data: bytes) -> None:
        self._chunk_bytes = len(data)
        super().data_received(data)
        if self._begun is not None:
            # The rest of its body is still to come.
            self._begin()
        if self._in_head and not self.transport.is_closing():
            self._awaited_bytes += len(data)
            # A read may hold the end of the last body: one read's worth more is let pass.
            if self._awaited_bytes > MAX_HEADER_BYTES + len(data):
                self._refuse_head()

    def on_message_begin(self) -> None:
        self._awaited_bytes = 0
        self._in_head = self._in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._awaited_bytes + self._chunk_bytes > MAX_HEADER_BYTES and self._head_bytes() > MAX_HEADER_BYTES:
            self._refuse_head()
        self._awaited_bytes = 0
        if not self.transport.is_closing():
            self._at_head = True
            super().on_headers_complete()
            self._at_head = False

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()
        if self._begun is not None:
            cycle, _ = self._begun
            scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]
            scope[COMPLETE] = bytes(cycle.body)
            scope[WHOLE] = partial(self._reply_whole, cycle)
            cycle.body.clear()
            self._begin()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    @property
    def idles(self) -> bool:
        """Whether something was asked, all of it is answered, and nothing of another request has come."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and cycle.response_complete and not self._in_message

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._at_head:
            # Begun when it is known whether the body has come as well.
            self._begun = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self) -> None:
        assert self._begun is not None, "asked before"
        begun, self._begun = self._begun, None
        super()._start_asgi_task(*begun)

    def _reply_whole(self, cycle: RequestResponseCycle, status: int, head: bytes, body: bytes) -> bool:
        """Send a reply in one piece; ``head`` is its header lines, the content's length among them, each with its end.
        False, and nothing is sent, where it has to go uvicorn's own way."""
        if cycle.disconnected or cycle.response_started or self.flow.write_paused or not cycle.keep_alive:
            return False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], self._date(), head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _date(self) -> bytes:
        headers = self.server_state.default_headers
        if self._always[0] is not headers:
            LeanProtocol._always = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._always[1]

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self) -> None:
        self.headers = []
        self.transport.write(_TOO_MUCH)
        self.transport.close()
