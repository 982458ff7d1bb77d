"""From a bound socket to the last answer: listening, signals, draining, and clients that never finish asking.

uvicorn with uvloop and httptools carries the bytes; of the ASGI servers measured it took the least CPU a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import uvicorn

from tandem.clock import Clock
from tandem.errors import ConfigError
from tandem.server.app import App
from tandem.server.options import ServerOptions
from tandem.server.protocol import LeanProtocol

log = logging.getLogger(__name__)

_BACKLOG = 2048
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError when the address can not be had.

    Bound before the model is loaded, so that a taken port is told at once and early clients wait or get 503.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(f"can not listen on {host}:{port}: {error.strerror or error}") from None


class HttpServer:
    """Serves one app on one socket until it is stopped."""

    def __init__(self, app: App, options: ServerOptions, listener: socket.socket, clock: Clock) -> None:
        """Raises ConfigError when the certificate or its key can not be used."""
        self._app = app
        self._options = options
        self._listener = listener
        self._clock = clock
        self._uvicorn = _Uvicorn(_config(app, options), self._on_signal)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._signalled = False
        self._gave_up = False

    @property
    def url(self) -> str:
        """Where a client on this machine finds the server."""
        host, port = self._listener.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "https" if self._options.tls_cert_file else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._uvicorn.connections())

    async def run(self, started: Callable[[str], None]) -> None:
        """Listen, start the engine, call ``started(url)``, and return when stopped and drained.

        In the main thread SIGTERM and SIGINT stop it. Raises what the engine's start raised.
        """
        self._loop = asyncio.get_running_loop()
        starting = asyncio.create_task(self._start(started))
        sweeping = asyncio.create_task(self._drop_slow_clients())
        try:
            await self._uvicorn.serve([self._listener])
        finally:
            for task in (starting, sweeping):
                task.cancel()
            await asyncio.wait([starting, sweeping])
            # What the drain waited for in vain may be a device that hangs: it would be waited for once more.
            await self._app.close(at_once=self._gave_up)
        for task in (starting, sweeping):
            if not task.cancelled():
                task.result()

    def stop(self) -> None:
        """Drain, then stop. Safe from any thread and from a signal handler; asking again changes nothing."""
        assert self._loop is not None, "the server does not run"
        self._loop.call_soon_threadsafe(self._begin_to_stop)

    def _on_signal(self) -> None:
        if self._signalled:
            _stop_at_once()
        self._signalled = True
        self.stop()

    async def _start(self, started: Callable[[str], None]) -> None:
        try:
            await self._app.start()
        except BaseException:
            self._uvicorn.should_exit = True
            raise
        started(self.url)

    def _begin_to_stop(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        log.info("draining: %d requests in flight; a second signal stops at once", self._app.inflight)
        if not await self._app.drain(self._options.drain_timeout_s):
            left, limit = self._app.inflight, self._options.drain_timeout_s
            log.warning("stopping with %d requests unanswered: they took longer than %g s", left, limit)
            self._gave_up = True
            self._uvicorn.abort()
        self._uvicorn.should_exit = True

    async def _drop_slow_clients(self) -> None:
        """Close connections on which nothing has moved for ``header_read_timeout_s``: request headers that do not end,
        replies that are not read. uvicorn has no such limits, and each connection holds memory. And those that have
        idled for ``keep_alive_timeout_s``.

        A sweep costs nothing per request; a timer for each would.
        """
        slow_s, idle_s = self._options.header_read_timeout_s, self._options.keep_alive_timeout_s
        since: dict[_Stall, float] = {}
        while True:
            await asyncio.sleep(min(slow_s, idle_s) / 4)
            now = self._clock.now()
            since = {stall: since.get(stall, now) for stall in self._uvicorn.stalls()}
            for stall, first_seen in since.items():
                if now - first_seen >= (idle_s if stall.idles else slow_s):
                    _drop(stall)


class _Stall(NamedTuple):
    """A connection that waits for its client. An equal one in a later sweep means that nothing has moved.

    ``unread_bytes`` of a reply are left to send; 0 means that request headers are awaited, after ``cycle``, and
    ``idles`` that nothing of them has come.
    """

    connection: Any
    cycle: Any
    unread_bytes: int
    idles: bool


def _drop(stall: _Stall) -> None:
    if stall.unread_bytes:
        stall.connection.transport.abort()
        return
    if not stall.idles:
        stall.connection.transport.write(_TIMED_OUT)
    stall.connection.transport.close()


class _Uvicorn(uvicorn.Server):
    """uvicorn, except for what a signal means: it would stop listening at once, and end by the signal's own code."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_signal()

    def stalls(self) -> list[_Stall]:
        """Connections that wait for their client."""
        found = []
        for connection in self.connections():
            cycle, unread = connection.cycle, connection.transport.get_write_buffer_size()
            between = cycle is None or cycle.response_complete
            if unread or between:
                found.append(_Stall(connection, cycle, unread, connection.idles and not unread))
        return found

    def abort(self) -> None:
        """Drop every connection, whatever it waits for."""
        self.force_exit = True
        for connection in self.connections():
            connection.transport.abort()

    def connections(self) -> list[Any]:
        """Those that are open."""
        # LeanProtocol, the only one that _config allows; its types do not say that `cycle` may be None.
        return list(self.server_state.connections)


def _config(app: App, options: ServerOptions) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=LeanProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are about what clients send: anyone could fill the log
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(options.drain_timeout_s)),
        ssl_certfile=options.tls_cert_file,
        ssl_keyfile=options.tls_key_file,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"can not use the certificate {options.tls_cert_file!r} with its key: {error}") from None
    return config


def _stop_at_once() -> None:
    """Leave without waiting: a forward pass runs in native code, which no exception and no exit handler can end."""
    log.warning("stopping at once")
    logging.shutdown()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(0)


def run_server(server: HttpServer, started: Callable[[str], None]) -> None:
    """Run a server in this thread until a signal stops it."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(server.run(started))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows has none; the server is the same there, only slower
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
