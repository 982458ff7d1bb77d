"""What the caches tell of themselves, for people and for metrics."""

from __future__ import annotations

import msgspec

from tandem.caching.tally import TierReport


class CacheReport(msgspec.Struct, frozen=True, kw_only=True):
    """``tiers``: texts and tokens by where they came from. ``memory`` and ``second_level``: their own counters and
    gauges; ``second_level`` is None where there is none, and ``state`` its condition in words. ``flights``: texts being
    computed for somebody now; ``joined``: texts that found another's flight. ``near``: the tier of near-duplicates,
    None where it is off."""

    tiers: dict[str, TierReport]
    text_hit_rate: float
    token_hit_rate: float
    memory: dict[str, float]
    aliases: int
    flights: int
    joined: int
    second_level: dict[str, float] | None = None
    second_level_name: str | None = None
    state: str = "ok"
    near: dict[str, float] | None = None
    near_state: str | None = None
