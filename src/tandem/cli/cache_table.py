"""``GET /v1/cache/stats`` for people: a paragraph for each cache, nothing left out that is not zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LABEL = 11
_WIDTH = 110


def table(stats: Mapping[str, Any]) -> list[str]:
    """The server's answer as lines."""
    rows = stats.get("rows")
    lines = ["the caches of rows are off (cache: off)"] if rows is None else list(_rows(rows))
    if stats.get("semantic") is None:
        return [*lines, *_fact("semantic", "off (semantic_cache: off)")]
    return [*lines, *_semantic(stats)]


def _rows(rows: Mapping[str, Any]) -> Iterator[str]:
    yield "tier                texts        tokens    of texts  of tokens   p50 us   p99 us"
    for name, tier in rows["tiers"].items():
        times = "".join("        -" if tier[key] is None else f" {1e6 * tier[key]:8.1f}" for key in ("p50_s", "p99_s"))
        yield (
            f"{name:<16} {tier['texts']:>8,} {tier['tokens']:>13,} {tier['text_share']:>10.1%} "
            f"{tier['token_share']:>9.1%} {times}"
        )
    yield from _fact("hit rate", f"{rows['text_hit_rate']:.1%} of texts, {rows['token_hit_rate']:.1%} of tokens")
    memory = dict(rows["memory"])
    held, budget = memory.pop("bytes"), memory.pop("budget_bytes")
    yield from _fact(
        "memory",
        f"{memory.pop('entries'):,.0f} rows, {_mib(held)} of {_mib(budget)}, "
        f"{memory.pop('evictions'):,.0f} made room, {rows.get('aliases', 0):,} second names",
    )
    yield from _counts(memory)
    yield from _fact("in flight", f"{rows['flights']:,} now, {rows['joined']:,} texts joined another's")
    if rows.get("second_level") is None:
        yield from _fact("level 2", "off (cache_l2: off)")
    else:
        yield from _fact(rows["second_level_name"], rows["state"])
        yield from _counts(rows["second_level"])
    if rows.get("near") is None:
        yield from _fact("near", "off (near_duplicates: off)")
    else:
        yield from _near(rows["near"], rows.get("near_state") or "")


def _near(near: Mapping[str, Any], state: str) -> Iterator[str]:
    counts = dict(near)
    threshold, audited = counts.pop("threshold"), counts.pop("audited")
    served, tenants = counts.pop("serving", 0), counts.pop("tenants", 0)
    wrong, share = counts.pop("audited_wrong"), counts.pop("audited_error", 0.0)
    bound = counts.pop("audited_error_bound", 1.0)
    yield from _fact("near", state)
    least = f", from a similarity of {threshold:.4f} of signatures on" if served else ""
    proven = f"{served:,.0f} of {tenants:,.0f} tenants that asked are served{least}"
    seen = f"{wrong:,.0f} of {audited:,.0f} audited answers were wrong ({share:.1%}, at most {bound:.1%} of all)"
    yield from _fact("", f"{proven}; {seen if audited else 'none was audited yet'}")
    yield from _counts(counts)


def _semantic(stats: Mapping[str, Any]) -> Iterator[str]:
    counts = dict(stats["semantic"])
    lookups, hits = counts.pop("lookups"), counts.pop("lookup_hits")
    held, index = counts.pop("bytes"), counts.pop("index_bytes")
    yield from _fact("semantic", stats.get("semantic_state") or "ok")
    yield from _fact(
        "",
        f"{counts.pop('entries'):,} payloads in {counts.pop('namespaces'):,} namespaces: {_mib(held)}, and "
        f"{_mib(index)} of indexes; {hits:,} of {lookups:,} look-ups had a hit ({hits / max(1, lookups):.1%})",
    )
    yield from _counts(counts)
    shared = stats.get("federation")
    if shared is None:
        yield from _fact("shared", "with no other instance (semantic_cache_redis is not set)")
    else:
        peers, behind = shared.get("peers", 0), shared.get("behind_s", 0.0)
        yield from _fact("shared", shared["state"])
        yield from _fact("", f"{shared['namespaces']:,} namespaces; {peers:,} peers heard of, {behind:.2g} s behind")
        yield from _counts(shared["counters"])
    yield from _namespaces(stats.get("namespaces") or {})


def _namespaces(namespaces: Mapping[str, Any]) -> Iterator[str]:
    """Those of who asks."""
    if namespaces:
        yield "your namespace (model)                      payloads        MiB   look-ups   with a hit"
    for name, found in namespaces.items():
        shown = name if len(name) <= 40 else f"{name[:37]}..."
        lookups = found["lookups"]
        share = found["lookup_hits"] / max(1, lookups)
        yield f"{shown:<40} {found['entries']:>11,} {found['bytes'] / 2**20:>10.1f} {lookups:>10,} {share:>12.1%}"
        if found.get("former_model"):
            yield "  of a model that is served no more; the first to go when room is needed"
        for one in found["promises"]:
            promise = one["promise"]
            asked = f"at most {promise['max_error']:.1%} wrong, {promise['confidence']:.0%} sure"
            yield f"  {asked}: {one['report']['words']}"
        if found["feedback_right"] or found["feedback_wrong"]:
            yield f"  feedback beside audits: {found['feedback_right']:,} right, {found['feedback_wrong']:,} wrong"


def _counts(counts: Mapping[str, Any]) -> Iterator[str]:
    """What is not zero, by name, in lines that fit a screen."""
    parts = [
        f"{name.replace('_', ' ')} {_number(value)}"
        for name, value in sorted(counts.items())
        if value not in (0, False)
    ]
    line = ""
    for part in parts:
        if line and _LABEL + len(line) + len(part) > _WIDTH:
            yield from _fact("", f"{line},")
            line = ""
        line = f"{line}, {part}" if line else part
    if line:
        yield from _fact("", line)


def _fact(label: str, words: str) -> Iterator[str]:
    yield f"{label:<{_LABEL}}{words}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"
