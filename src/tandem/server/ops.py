"""Routes for those who run the service: health and metrics."""

from __future__ import annotations

import msgspec

from tandem.errors import NotReady
from tandem.server.base import Api, Reply
from tandem.server.readiness import Readiness
from tandem.server.request import Request
from tandem.server.routing import Route
from tandem.telemetry import CONTENT_TYPE, Metrics


class Health(msgspec.Struct):
    """``status`` is ok or unavailable; ``reason`` says why, for people."""

    status: str
    reason: str


_encode = msgspec.json.Encoder().encode


class Ops:
    """``/livez``, ``/readyz``, ``/health``, ``/metrics``."""

    def __init__(self, readiness: Readiness, metrics: Metrics, *, docs: bool, metrics_open: bool) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._docs = docs
        self._metrics_open = metrics_open

    def routes(self) -> list[Route]:
        """Health answers without a key and while the process drains; a probe has no key and must see the draining."""

        return [
            Route("GET", "/livez", Api.TEI, self.livez, "Does the process run?", gives=Health, open=True, always=True),
            Route("GET", "/readyz", Api.TEI, self.readyz, "Can it embed?", gives=Health, open=True, always=True),
            Route(
                "GET",
                "/health",
                Api.TEI,
                self.health,
                "Can it embed? (TEI)",
                media="",
                aliases=("/ping",),
                open=True,
                always=True,
            ),
            Route(
                "GET",
                "/",
                Api.TEI,
                self.root,
                "/docs for a browser, /health for others",
                open=True,
                always=True,
                hidden=True,
            ),
            Route(
                "GET",
                "/metrics",
                Api.TEI,
                self.metrics,
                "Metrics for Prometheus",
                media="text/plain",
                open=self._metrics_open,
                always=True,
            ),
        ]

    async def livez(self, request: Request) -> Reply:
        """The process runs and its event loop turns; nothing is said of the model."""
        return Reply(_encode(Health("ok", "the process answers")))

    async def readyz(self, request: Request) -> Reply:
        """Whether requests would be answered now."""
        ready, reason = self._readiness.state()
        if ready:
            return Reply(_encode(Health("ok", reason)))
        return Reply(_encode(Health("unavailable", reason)), status=503, headers=[(b"retry-after", b"1")])

    async def health(self, request: Request) -> Reply:
        """``/readyz`` in TEI's shape: an empty 200, or 503 with the reason. Raises NotReady."""
        ready, reason = self._readiness.state()
        if not ready:
            raise NotReady(reason, retry_after_s=1.0)
        return Reply(b"")

    async def root(self, request: Request) -> Reply:
        """TEI's health is here too, and balancers ask for it; a person who types the address wants the page."""
        if self._docs and b"text/html" in request.headers.get(b"accept", b""):
            return Reply(b"", status=307, headers=[(b"location", b"/docs"), (b"vary", b"accept")])
        return await self.health(request)

    async def metrics(self, request: Request) -> Reply:
        """Everything in the Prometheus text format."""
        return Reply(self._metrics.render(), content_type=CONTENT_TYPE.encode())
