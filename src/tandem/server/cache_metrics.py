"""Reports of the caches as the table of instruments has them."""

from __future__ import annotations

from collections.abc import Mapping

from tandem.caching.report import CacheReport
from tandem.sharing import FederationReport, SharedSemantic
from tandem.telemetry import Reading
from tandem.telemetry import cache_instruments as table

_FAULTS = ("errors", "late", "skipped", "rejected", "expired", "refused", "unfit", "dropped")
_BREAKER_STATES = ("closed", "open", "half_open")
_FEDERATION_FAULTS = {
    "errors": ("errors",),
    "unsent": ("outbox_dropped",),
    "unread": ("read_gaps_left",),
    "refused": ("read_refused",),
    "stale": ("stale",),
    "mismatched": ("mismatched",),
    "left_out": ("left_out",),
    "too_long": ("too_long",),
    "parted": ("parted",),
}
_DAMAGED = "read_dropped_"
_REFUSED = "refused_"

_Values = dict[tuple[str, ...], float]


def reading(rows: CacheReport | None, semantic: SharedSemantic | None) -> Reading:
    """By instrument and labels; what is switched off has no values."""
    found: dict[str, _Values] = {}
    if rows is not None:
        found |= _exact(rows)
        found |= {} if rows.near is None else _near(rows.near)
    if semantic is not None:
        found |= _semantic(semantic)
        shared = semantic.federation()
        found |= {} if shared is None else _federation(shared)
    return found


def _exact(report: CacheReport) -> dict[str, _Values]:
    levels = {"l1": report.memory}
    if report.second_level is not None:
        levels["l2"] = report.second_level
    behind = {level: counts for level, counts in levels.items() if level != "l1"}
    tiers = report.tiers.items()
    return {
        table.CACHE_TEXTS.name: {(source,): float(tier.texts) for source, tier in tiers},
        table.CACHE_TOKENS.name: {(source,): float(tier.tokens) for source, tier in tiers},
        table.CACHE_LOOKUP.name: {(source,): tier.p99_s for source, tier in tiers if tier.p99_s is not None},
        table.CACHE_JOINED.name: _one(report.joined),
        table.CACHE_BYTES.name: _where(levels, "bytes"),
        table.CACHE_BUDGET.name: _where(levels, "budget_bytes"),
        table.CACHE_ENTRIES.name: _where(levels, "entries"),
        table.CACHE_EVICTIONS.name: _where(levels, "evictions") | _where(levels, "evicted"),
        table.CACHE_WRITTEN.name: _where(behind, "written"),
        table.CACHE_BACKLOG.name: _where(behind, "backlog_rows"),
        table.CACHE_FAULTS.name: {
            (level, kind): counts[kind] for level, counts in levels.items() for kind in _FAULTS if kind in counts
        },
        table.CACHE_UP.name: {(level,): float(level == "l1" or report.state == "ok") for level in levels},
        table.CACHE_BREAKER.name: {
            (level, state): float(state == _breaker_state(counts))
            for level, counts in behind.items()
            if "breaker_open" in counts
            for state in _BREAKER_STATES
        },
        table.CACHE_BREAKER_OPENED.name: _where(behind, "breaker_opened"),
    }


def _breaker_state(counts: Mapping[str, float]) -> str:
    if not counts["breaker_open"]:
        return "closed"
    return "half_open" if counts["breaker_half_open"] else "open"


def _near(counts: Mapping[str, float]) -> dict[str, _Values]:
    served, audited = counts["serving"], counts["audited"] > 0
    reasons = {name.removeprefix(_REFUSED): count for name, count in counts.items() if name.startswith(_REFUSED)}
    return {
        table.NEAR_LOOKUPS.name: _one(counts["lookups"]),
        table.NEAR_FOUND.name: _one(counts["found"]),
        table.NEAR_SERVED.name: _one(counts["served"]),
        table.NEAR_REFUSED.name: {(reason,): count for reason, count in reasons.items()},
        table.NEAR_LABELLED.name: _one(counts["labelled"]),
        table.NEAR_TENANTS.name: {("served",): served, ("learning",): counts["tenants"] - served},
        table.NEAR_THRESHOLD.name: _one(counts["threshold"]) if served else {},
        table.NEAR_AUDITED.name: _one(counts["audited"]),
        table.NEAR_AUDITED_WRONG.name: _one(counts["audited_wrong"]),
        table.NEAR_ERROR.name: _one(counts["audited_error"]) if audited else {},
        table.NEAR_ERROR_BOUND.name: _one(counts["audited_error_bound"]),
        table.NEAR_ALARMS.name: _one(counts["alarms"]),
        table.NEAR_ANCHORS.name: _one(counts["anchors"]),
        table.NEAR_BYTES.name: _one(counts["bytes"]),
    }


def _semantic(semantic: SharedSemantic) -> dict[str, _Values]:
    counts = semantic.cache.statistics()
    return {
        table.SEMANTIC_UP.name: _one(semantic.state() == "ok"),
        table.SEMANTIC_LOOKUPS.name: _one(counts.lookups),
        table.SEMANTIC_HITS.name: _one(counts.lookup_hits),
        table.SEMANTIC_STORED.name: _one(counts.stored),
        table.SEMANTIC_EVICTIONS.name: _one(counts.evicted),
        table.SEMANTIC_EXPIRED.name: _one(counts.expired),
        table.SEMANTIC_NAMESPACES.name: _one(counts.namespaces),
        table.SEMANTIC_ENTRIES.name: _one(counts.entries),
        table.SEMANTIC_BYTES.name: _one(counts.bytes),
        table.SEMANTIC_INDEX_BYTES.name: _one(counts.index_bytes),
        table.SEMANTIC_AUDITS.name: {
            ("right",): float(counts.audited - counts.audited_wrong),
            ("wrong",): float(counts.audited_wrong),
        },
        table.SEMANTIC_ALARMS.name: _one(counts.alarms),
    }


def _federation(report: FederationReport) -> dict[str, _Values]:
    counts = report.counters

    def total(*names: str) -> float:
        return sum(counts.get(name, 0.0) for name in names)

    faults: _Values = {(kind,): total(*names) for kind, names in _FEDERATION_FAULTS.items()}
    faults["damaged",] = total(*(name for name in counts if name.startswith(_DAMAGED)))
    return {
        table.FEDERATION_UP.name: _one(report.state == "ok" or not report.namespaces),
        table.FEDERATION_NAMESPACES.name: _one(report.namespaces),
        table.FEDERATION_PEERS.name: _one(report.peers),
        table.FEDERATION_LAG.name: _one(report.behind_s),
        table.FEDERATION_ENTRIES.name: _one(total("entries")),
        table.FEDERATION_UNSENT.name: _one(total("waiting", "unshared")),
        table.FEDERATION_LOOKUPS.name: {("hit",): total("hits"), ("miss",): total("misses")},
        table.FEDERATION_ANNOUNCEMENTS.name: {("sent",): total("outbox_sent"), ("received",): total("read_heard")},
        table.FEDERATION_FAULTS.name: faults,
    }


def _one(value: float) -> _Values:
    return {(): float(value)}


def _where(levels: Mapping[str, Mapping[str, float]], name: str) -> _Values:
    return {(level,): counts[name] for level, counts in levels.items() if name in counts}
