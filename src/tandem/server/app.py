"""The ASGI application: one request from its headers to the last byte of its answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets

from tandem.clock import Clock
from tandem.errors import Draining, TandemError
from tandem.server.access import AccessLog
from tandem.server.auth import ApiKeys
from tandem.server.base import Api, Headers, Receive, Reply, Scope, Send, Service
from tandem.server.cache import CacheRoutes
from tandem.server.cache_metrics import reading
from tandem.server.cohere import Cohere
from tandem.server.cors import Cors
from tandem.server.errors import ClientLeft, render
from tandem.server.gateway import Gateway
from tandem.server.openai import OpenAI
from tandem.server.openapi import Facts
from tandem.server.ops import Ops
from tandem.server.options import ServerOptions
from tandem.server.pages import page_routes
from tandem.server.readiness import Readiness
from tandem.server.request import Request
from tandem.server.routing import Route, Router, api_of
from tandem.server.semantic import SemanticRoutes
from tandem.server.tei import Tei
from tandem.server.tei_tokens import TokenRoutes
from tandem.sharing import SharedSemantic
from tandem.telemetry import Metrics

log = logging.getLogger(__name__)

CLOSE = (b"connection", b"close")
LEFT_STATUS = 499
"""Counted, never sent: the client closed the connection first. The number is nginx's."""

UNMATCHED = "unmatched"
OK = 200


class App:
    """An ASGI 3 application without a framework: a framework's routing alone costs half of what we spend in all."""

    def __init__(
        self,
        service: Service,
        options: ServerOptions,
        metrics: Metrics,
        clock: Clock,
        semantic: SharedSemantic | None = None,
    ) -> None:
        self._service = service
        self._semantic = semantic
        self._metrics = metrics
        self._clock = clock
        self.readiness = Readiness(service, clock, options.readiness_interval_s)
        self._keys = ApiKeys(options.api_keys)
        self._cors = Cors(options.cors_origins)
        self._access = AccessLog(clock) if options.access_log else None
        gateway = Gateway(service, options, self.readiness, metrics, clock)
        ops = Ops(self.readiness, metrics, docs=options.docs, metrics_open=options.metrics_open)
        self._router = Router(_routes(gateway, ops, clock, semantic))
        self._ids = map(f"req-{secrets.token_hex(4)}-{{:x}}".format, itertools.count(1))
        self._inflight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._watching: asyncio.Task[None] | None = None
        metrics.read_caches = lambda: reading(service.recall.report() if service.recall else None, semantic)
        metrics.watch_inflight(lambda: self._inflight)
        metrics.watch_queue(lambda: service.backlog().queued_texts, lambda: service.backlog().queued_tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(Request(scope, receive, next(self._ids), self._clock.now()), send)
        else:
            raise NotImplementedError(f"Tandem speaks HTTP, not {scope['type']}")

    async def start(self) -> None:
        """Start the engine and the readiness probe; requests get 503 until this has ended. Raises the tree's errors."""
        if self._semantic is not None:
            self._semantic.start()
        await self._service.start()
        self.readiness.started()
        self._watching = asyncio.create_task(self.readiness.watch())

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for those in flight; False when some were left after ``timeout_s``."""
        self._draining = True
        self.readiness.draining()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                await self._service.drain()
        except TimeoutError:
            return False
        return True

    async def close(self, *, at_once: bool = False) -> None:
        """Stop the probe and the engine, ``at_once`` without waiting for what it computes."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._service.close(at_once=at_once)
        if self._semantic is not None:
            await self._semantic.close()

    @property
    def inflight(self) -> int:
        """Requests accepted and not yet answered."""
        return self._inflight

    async def _serve(self, request: Request, send: Send) -> None:
        self._inflight += 1
        self._idle.clear()
        try:
            route, reply = await self._answer(request)
            if request.computed_s:
                self._metrics.encoded(self._clock.now() - request.computed_s)
            if reply is not None:
                await self._send(request, reply, send)
            self._count(request, route, LEFT_STATUS if reply is None else reply.status)
        finally:
            self._inflight -= 1
            if not self._inflight:
                self._idle.set()

    async def _answer(self, request: Request) -> tuple[Route | None, Reply | None]:
        """The route and its reply; no route where none fits, no reply where no one waits for it."""
        route = None
        try:
            if self._cors and request.method == "OPTIONS":
                reply = self._cors.preflight(request.headers, self._router.allowed(request.path))
                if reply is not None:
                    return None, reply
            route = self._router.find(request.method, request.path)
            self._admit(request, route)
            return route, await route.handler(request)
        except ClientLeft:
            return route, None
        except TandemError as error:
            return route, render(error, _api(request, route), request.id)
        # The HTTP edge: whatever went wrong in one request, the others go on and this one gets an answer.
        except Exception as error:
            log.exception("request %s failed: %s %s", request.id, request.method, request.path)
            return route, render(error, _api(request, route), request.id)

    def _admit(self, request: Request, route: Route) -> None:
        if self._keys and not route.open:
            request.tenant = self._keys.check(request.headers)
        if self._draining and not route.always:
            raise Draining("the server is shutting down")

    async def _send(self, request: Request, reply: Reply, send: Send) -> None:
        if reply.status == OK and not (reply.headers or reply.parts or self._cors or self._draining):
            # What is answered by the thousand. All of its headers are ours, so nobody needs to look through them.
            whole = request.take_whole()
            if whole is not None and whole(OK, _lines(self._headers(request, reply)), reply.body):
                return
        headers = self._headers(request, reply)
        if self._cors:
            headers += self._cors.headers(request.headers)
        if self._draining and CLOSE not in headers:
            headers.append(CLOSE)
        body = b"" if request.method == "HEAD" else reply.body
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if not reply.parts:
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.body", "body": body, "more_body": True})
        reply.parts.reverse()  # taken from the end, each is let go once it is sent
        while reply.parts:
            part = reply.parts.pop()
            await send({"type": "http.response.body", "body": part, "more_body": bool(reply.parts)})
            await asyncio.sleep(0)

    def _headers(self, request: Request, reply: Reply) -> Headers:
        headers: Headers = [
            (
                b"content-length",
                b"%d" % (len(reply.body) + sum(map(len, reply.parts)) if reply.parts else len(reply.body)),
            ),
            (b"x-request-id", request.id.encode()),
        ]
        if reply.body or reply.parts:
            headers.append((b"content-type", reply.content_type))
        headers += reply.headers
        if request.source:
            headers.append((b"x-tandem-cache", request.source))
            if request.similarity is not None:
                headers.append((b"x-tandem-similarity", b"%.4f" % request.similarity))
        return headers

    def _count(self, request: Request, route: Route | None, status: int) -> None:
        seconds = self._clock.now() - request.started_s
        api = _api(request, route)
        # An unknown path is never a label: anyone could make as many time series as there are paths.
        self._metrics.request(api.value, route.path if route else UNMATCHED, status, seconds)
        if self._access is not None:
            self._access.write(request, api, status, seconds)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """For other ASGI servers; our own starts listening before the model is loaded, and so does not use it."""
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _api(request: Request, route: Route | None) -> Api:
    return route.api if route is not None else api_of(request.path)


def _routes(gateway: Gateway, ops: Ops, clock: Clock, semantic: SharedSemantic | None) -> list[Route]:
    described = [
        *OpenAI(gateway, clock.wall()).routes(),
        *Tei(gateway).routes(),
        *TokenRoutes(gateway).routes(),
        *Cohere(gateway).routes(),
        *CacheRoutes(gateway, semantic).routes(),
        *(SemanticRoutes(gateway, semantic).routes() if semantic else ()),
        *ops.routes(),
    ]
    if not gateway.options.docs:
        return described
    model, options = gateway.service.model, gateway.options
    facts = Facts(gateway.names, tuple(model.prompts), model.dims, options.max_batch_items, options.max_body_bytes)
    return [*described, *page_routes(described, facts)]
