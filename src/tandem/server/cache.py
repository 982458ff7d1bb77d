"""Routes that show and steer the caches: ``GET /v1/cache/stats``, ``POST /v1/cache/clear``.

Clearing is for who runs the service, not for each tenant. A tenant's own rows can not be cleared for good: a key is a
hash, so nobody can tell whose row lies under it, in Redis and on the disk, and in the memories of other servers; and
where tenants share rows they belong to nobody. So with several API keys it takes one of ``admin_key_file``. With one
key or none, whoever asks runs the service. A tenant's payloads are its own to delete: ``DELETE /v1/semantic-cache``.

Rejected: a number in each tenant's keys that clearing counts up. Rows would stay where they are, unreachable, which is
not what somebody means who wants them gone; and the number would have to outlive restarts and reach all servers.

The statistics are for every key: sums over all tenants, as at ``/metrics``, from which nothing can be told of another's
texts; of namespaces only the caller's own. What is wrong with a store, which may name hosts and folders, is told in
words to who may clear.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from tandem.caching.report import CacheReport
from tandem.errors import Forbidden
from tandem.semantic.base import NamespaceStatistics, SemanticStatistics
from tandem.server.auth import ApiKeys
from tandem.server.base import Api, Reply
from tandem.server.gateway import Gateway
from tandem.server.request import Request
from tandem.server.routing import Route
from tandem.sharing import FederationReport, SharedSemantic


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


_TOLD_TO_ALL = ("ok", "is being opened", "closed")

_encode = msgspec.json.Encoder().encode


class CacheRoutes:
    """For those who run the service."""

    def __init__(self, gateway: Gateway, semantic: SharedSemantic | None) -> None:
        self._gateway = gateway
        self._semantic = semantic
        self._admins = ApiKeys(gateway.options.admin_keys)
        self._is_ones_own = len(set(gateway.options.api_keys)) <= 1

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/cache/stats", Api.OPENAI, self.stats, "How the caches stand", gives=CacheStats),
            Route("POST", "/v1/cache/clear", Api.OPENAI, self.clear, "Forget every row of this model", gives=Cleared),
        ]

    async def stats(self, request: Request) -> Reply:
        """Hit rates by tier, by texts and by tokens; latencies in seconds; bytes; conditions."""
        recall, semantic = self._gateway.service.recall, self._semantic
        told = _plainly if self._steers(request) else _whether_ok
        rows = None if recall is None else recall.report()
        found = CacheStats(None if rows is None else replace(rows, state=told(rows.state)))
        if semantic is not None:
            own = semantic.cache.namespaces(request.tenant).items()
            found.semantic, found.semantic_state = semantic.cache.statistics(), told(semantic.state())
            found.namespaces = {f"{name.name} ({name.model})": counts for name, counts in own}
            shared = semantic.federation()
            found.federation = None if shared is None else replace(shared, state=told(shared.state))
        return Reply(_encode(found))

    async def clear(self, request: Request) -> Reply:
        """Memory, aliases, and the rows of this model in the second level, which other servers may share; what those
        have in memory stays. Raises Forbidden, and ServiceError when the second level can not be cleared."""
        if not self._steers(request):
            raise Forbidden(
                "clearing forgets the rows of all API keys, so it takes a key of its own: the server's setting "
                f"admin_key_file names the file of those keys{'' if self._admins else ', and is not set'}"
            )
        recall = self._gateway.service.recall
        if recall is not None:
            await recall.clear()
        return Reply(_encode(Cleared("rows of " + self._gateway.model_id)))

    def _steers(self, request: Request) -> bool:
        return self._admins.knows(request.headers) if self._admins else self._is_ones_own


def _plainly(state: str) -> str:
    return state


def _whether_ok(state: str) -> str:
    return state if state in _TOLD_TO_ALL or state.startswith("no namespace") else "not ok"
