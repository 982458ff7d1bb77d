"""``tandem cache stats`` for people, from what the server's own types say."""

from __future__ import annotations

import msgspec
import numpy as np

from tandem.caching.report import CacheReport
from tandem.caching.tally import TierReport
from tandem.cli.cache_table import table
from tandem.clock import ManualClock
from tandem.semantic.base import Item, Namespace, SemanticOptions
from tandem.semantic.cache import SemanticCache
from tandem.server.cache import CacheStats
from tandem.sharing.semantic import FederationReport
from tandem.vectors import IndexOptions, best_index
from tandem.verification import Promise

TIER = TierReport(texts=30, tokens=120, text_share=0.75, token_share=0.8, p50_s=3e-6, p99_s=None)
ROWS = CacheReport(
    tiers={"l1": TIER, "miss": TIER},
    text_hit_rate=0.75,
    token_hit_rate=0.8,
    memory={"entries": 4, "bytes": 1 << 20, "budget_bytes": 1 << 28, "evictions": 2, "expired": 0, "window": 0.125},
    aliases=1234,
    flights=1,
    joined=7,
    second_level={"hits": 5.0, "errors": 0.0, "rejected_model": 2.0},
    second_level_name="redis",
    state="breaker open: it is stopped",
)
NEAR = {
    "lookups": 100,
    "served": 7,
    "refused_numbers": 5,
    "tenants": 3,
    "serving": 1,
    "threshold": 0.97,
    "audited": 12,
    "audited_wrong": 3,
    "audited_error": 0.25,
    "audited_error_bound": 0.53,
    "alarms": 1,
}


def shown(stats: CacheStats) -> str:
    return "\n".join(table(msgspec.json.decode(msgspec.json.encode(stats))))


def semantic_cache() -> SemanticCache:
    cache = SemanticCache(SemanticOptions(), lambda dims: best_index(IndexOptions(dims=dims)), ManualClock())
    namespace, vector = Namespace("", "faq", "model"), np.ones(4, np.float32)
    entry = cache.store(namespace, Item(vector=vector, payload=b'"18 degrees"'))
    cache.lookup(namespace, vector, 0.9)
    found = cache.lookup_verified(namespace, vector, Promise(0.05, 0.99))
    assert found.lookup_id is not None
    cache.feedback(namespace, found.lookup_id, True)
    cache.feedback(namespace, entry, False)
    return cache


def test_all_that_is_on_is_told() -> None:
    cache = semantic_cache()
    namespaces = {f"{name.name} ({name.model})": counts for name, counts in cache.namespaces("").items()}
    rows = msgspec.structs.replace(ROWS, near=NEAR, near_state="serves 1 of 3 tenants")
    federation = FederationReport("no answer", 2, {"hits": 9.0, "stale": 1.0}, peers=3, behind_s=0.25)
    told = shown(CacheStats(rows, cache.statistics(), "ok", namespaces, federation))
    for words in (
        "l1                     30           120      75.0%     80.0%       3.0        -",
        "4 rows, 1.0 MiB of 256.0 MiB, 2 made room, 1,234 second names",
        "window 0.125",
        "1 now, 7 texts joined another's",
        "redis      breaker open: it is stopped",
        "hits 5, rejected model 2",
        "near       serves 1 of 3 tenants",
        "1 of 3 tenants that asked are served, from a similarity of 0.9700",
        "3 of 12 audited answers were wrong (25.0%, at most 53.0% of all)",
        "alarms 1, lookups 100, refused numbers 5, served 7",
        "1 payloads in 1 namespaces",
        "1 of 2 look-ups had a hit (50.0%)",
        "audited 1",
        "shared     no answer",
        "2 namespaces; 3 peers heard of, 0.25 s behind",
        "hits 9, stale 1",
        "faq (model)",
        "at most 5.0% wrong, 99% sure: ",
        "0 right, 1 wrong",
    ):
        assert words in told, words
    assert "errors" not in told, "what is zero is left out"
    assert max(map(len, told.splitlines())) <= 160


def test_what_is_off_is_said_to_be() -> None:
    told = shown(CacheStats(None))
    assert told.splitlines() == ["the caches of rows are off (cache: off)", "semantic   off (semantic_cache: off)"]
    alone = shown(CacheStats(msgspec.structs.replace(ROWS, second_level=None), semantic_cache().statistics(), "ok"))
    for words in ("level 2    off (cache_l2: off)", "near       off", "shared     with no other instance"):
        assert words in alone
