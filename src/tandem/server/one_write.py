"""One system call a reply: uvicorn writes a reply's head and its body apart, and uvloop sends each at once.

Measured with wrk, 64 connections and one-text replies of 5 kB: 58 to 48 us of CPU a request, and the client wakes once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tandem.server.base import COMPLETE


class OneWriteTransport(asyncio.Transport):
    """Gathers what is written in one turn of the event loop and sends it at the end of the turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        # One part is the rest of a long reply: joining would copy it for nothing.
        if parts:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


MAX_HEADER_BYTES = 64 * 1024
"""Of one request: its target and all its header lines."""

_TOO_MUCH = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over such a transport, and a limit on headers, which uvicorn has not.

    The parser holds one header line until it ends, so what arrives while headers are awaited counts too.
    """

    _head_bytes = 0
    _awaited_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(OneWriteTransport(transport, self.loop))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._awaited_bytes += len(data)
            # A read may hold the end of the last body: one read's worth more is let pass.
            if self._awaited_bytes > MAX_HEADER_BYTES + len(data):
                self._refuse_head()

    def on_message_begin(self) -> None:
        self._head_bytes = self._awaited_bytes = 0
        self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._awaited_bytes = 0
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        # So that nobody sets a timer for a body that is there: it costs as much as all else that reads one.
        self.scope[COMPLETE] = True  # type: ignore[literal-required]
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def _refuse_head(self) -> None:
        self.headers = []
        self.transport.write(_TOO_MUCH)
        self.transport.close()
