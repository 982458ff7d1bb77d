"""A report of the caches as the table of instruments has it."""

from __future__ import annotations

from tandem.caching.report import CacheReport
from tandem.telemetry import Reading
from tandem.telemetry import instruments as table

_FAULTS = ("errors", "late", "skipped", "rejected", "dropped")


def reading(report: CacheReport | None) -> Reading:
    """By instrument and labels; empty without caches."""
    if report is None:
        return {}
    levels = {"l1": report.memory}
    if report.second_level is not None:
        levels["l2"] = report.second_level
    tiers = report.tiers.items()
    return {
        table.CACHE_TEXTS.name: {(source,): float(tier.texts) for source, tier in tiers},
        table.CACHE_TOKENS.name: {(source,): float(tier.tokens) for source, tier in tiers},
        table.CACHE_LOOKUP.name: {(source,): tier.p99_s for source, tier in tiers if tier.p99_s is not None},
        table.CACHE_JOINED.name: {(): float(report.joined)},
        table.CACHE_BYTES.name: _where(levels, "bytes"),
        table.CACHE_ENTRIES.name: _where(levels, "entries"),
        table.CACHE_EVICTIONS.name: _where(levels, "evictions") | _where(levels, "evicted"),
        table.CACHE_FAULTS.name: {
            (level, kind): counts[kind] for level, counts in levels.items() for kind in _FAULTS if kind in counts
        },
        table.CACHE_UP.name: {(level,): float(level == "l1" or report.state == "ok") for level in levels},
    }


def _where(levels: dict[str, dict[str, float]], name: str) -> dict[tuple[str, ...], float]:
    return {(level,): counts[name] for level, counts in levels.items() if name in counts}
