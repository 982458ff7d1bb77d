"""Routes that show and steer the caches: ``GET /v1/cache/stats``, ``POST /v1/cache/clear``."""

from __future__ import annotations

import msgspec

from tandem.caching.report import CacheReport
from tandem.fleet_semantic import FederationReport, SharedSemantic
from tandem.semantic.base import NamespaceStatistics, SemanticStatistics
from tandem.server.base import Api, Reply
from tandem.server.gateway import Gateway
from tandem.server.request import Request
from tandem.server.routing import Route


class CacheStats(msgspec.Struct):
    """``rows``: the caches of rows, null where they are off. ``semantic``: the semantic cache, and its namespaces that
    are the caller's, by name and model. ``federation``: how it is shared with other instances, null where it is not."""

    rows: CacheReport | None
    semantic: SemanticStatistics | None = None
    semantic_state: str | None = None
    namespaces: dict[str, NamespaceStatistics] = {}
    federation: FederationReport | None = None


class Cleared(msgspec.Struct):
    """What was forgotten."""

    cleared: str


_encode = msgspec.json.Encoder().encode


class CacheRoutes:
    """For those who run the service."""

    def __init__(self, gateway: Gateway, semantic: SharedSemantic | None) -> None:
        self._gateway = gateway
        self._semantic = semantic

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/cache/stats", Api.OPENAI, self.stats, "How the caches stand", gives=CacheStats),
            Route("POST", "/v1/cache/clear", Api.OPENAI, self.clear, "Forget every row of this model", gives=Cleared),
        ]

    async def stats(self, request: Request) -> Reply:
        """Hit rates by tier, by texts and by tokens; latencies in seconds; bytes; conditions."""
        recall, semantic = self._gateway.service.recall, self._semantic
        rows = None if recall is None else recall.report()
        if semantic is None:
            return Reply(_encode(CacheStats(rows)))
        own = semantic.cache.namespaces(request.tenant).items()
        namespaces = {f"{name.name} ({name.model})": counts for name, counts in own}
        shared = semantic.federation()
        return Reply(_encode(CacheStats(rows, semantic.cache.statistics(), semantic.state(), namespaces, shared)))

    async def clear(self, request: Request) -> Reply:
        """Memory, aliases, and the rows of this model in the second level, which other servers may share."""
        recall = self._gateway.service.recall
        if recall is not None:
            await recall.clear()
        return Reply(_encode(Cleared("rows of " + self._gateway.model_id)))
