"""The real server on the loopback: real sockets, the real engine, the fake device."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tandem.caches import build_semantic
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.server import App, HttpServer, ServerOptions, listen
from tandem.telemetry import Metrics


class Loopback:
    """A server that runs in a thread of its own."""

    def __init__(self, engine: Engine, options: ServerOptions) -> None:
        clock = SystemClock()
        self.metrics = Metrics()
        self.listener = listen("127.0.0.1", 0)
        app = App(engine, options, self.metrics, clock, build_semantic(Settings(), clock))
        self.server = HttpServer(app, options, self.listener, clock)
        self.url = self.server.url
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._run, name="tandem-server")

    def _run(self) -> None:
        asyncio.run(self.server.run(lambda url: self.started.set()))

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def talk(self, *parts: bytes) -> bytes:
        """Send the parts on one connection and read until the server closes it or has said a whole reply."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return read_reply(connection)


def read_reply(connection: socket.socket) -> bytes:
    """One reply with a Content-Length, or all until the connection ends."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        if end and not head.startswith(b"HTTP/1.1 100"):
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if lengths and len(body) >= int(lengths[0].split(b":")[1]):
                return data
        part = connection.recv(65536)
        if not part:
            return data
        data += part


@contextmanager
def loopback(engine: Engine, options: ServerOptions) -> Iterator[Loopback]:
    """A started server, drained and stopped at the end."""
    made = Loopback(engine, options)
    made.thread.start()
    assert made.started.wait(30), "the server did not start"
    try:
        yield made
    finally:
        made.server.stop()
        made.thread.join(30)
        assert not made.thread.is_alive(), "the server did not stop"
