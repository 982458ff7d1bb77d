"""What the caches tell of themselves, as a Prometheus server reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from tandem.caches import build_recall, build_semantic
from tandem.caching.report import CacheReport
from tandem.clock import ManualClock, SystemClock
from tandem.config import Settings
from tandem.semantic.base import Item, Namespace
from tandem.server.cache_metrics import reading
from tandem.sharing.semantic import SharedSemantic
from tandem.telemetry.cache_instruments import CACHE_INSTRUMENTS
from tandem.verification import Promise
from tests.engines import Device, asking, make_engine, until, words

NOWHERE = "redis://127.0.0.1:1/0"
NEAR = {
    "lookups": 100,
    "found": 40,
    "served": 7,
    "labelled": 30,
    "refused_numbers": 5,
    "refused_negation": 2,
    "anchors": 50,
    "bytes": 5000,
    "tenants": 3,
    "serving": 1,
    "labels": 30,
    "threshold": 0.97,
    "audited": 12,
    "audited_wrong": 3,
    "audited_error": 0.25,
    "audited_error_bound": 0.53,
    "alarms": 1,
}
HERE = Namespace("tenant", "default", "model")


async def rows_of(settings: Settings) -> CacheReport:
    """Of an engine that has computed a text and then knew it."""
    engine = make_engine(Device())
    engine.recall = build_recall(settings, engine.model, engine.intake, engine.loop, SystemClock())
    assert engine.recall is not None
    for _ in range(2):
        await engine.embed(asking(words(1, 2)))
    report = engine.recall.report()
    await engine.close()
    return report


def semantic_of(settings: Settings) -> SharedSemantic:
    found = build_semantic(settings, ManualClock())
    assert found is not None
    return found


def value(found: Mapping[str, Mapping[tuple[str, ...], float]], name: str, *labels: str) -> float:
    return found[name][labels]


async def test_every_instrument_of_the_caches_is_filled(tmp_path: Path) -> None:
    settings = Settings(cache_l2="disk", cache_dir=str(tmp_path), semantic_cache_redis=NOWHERE)
    semantic = semantic_of(settings)
    found = reading(replace(await rows_of(settings), near=NEAR), semantic)
    await semantic.close()
    assert {row.name for row in CACHE_INSTRUMENTS if not found[row.name]} == set()
    assert set(found) == {row.name for row in CACHE_INSTRUMENTS}
    for row in CACHE_INSTRUMENTS:
        assert {len(labels) for labels in found[row.name]} == {len(row.labels)}, row.name


def test_what_is_off_tells_nothing() -> None:
    assert reading(None, None) == {}


async def test_the_breaker_of_a_redis_that_is_away_is_seen() -> None:
    report = await rows_of(Settings(cache_l2=NOWHERE))
    found = reading(report, None)
    states = {
        state: value(found, "tandem_cache_breaker_state", "l2", state) for state in ("closed", "open", "half_open")
    }
    assert states == {"closed": 0, "open": 1, "half_open": 0}
    assert value(found, "tandem_cache_breaker_opened_total", "l2") == 1
    assert value(found, "tandem_cache_up", "l2") == 0
    assert value(found, "tandem_cache_up", "l1") == 1
    assert value(found, "tandem_cache_faults_total", "l2", "errors") >= 1
    assert not any(name.startswith(("tandem_near", "tandem_semantic", "tandem_federation")) for name in found)


async def test_a_probe_under_way_is_half_open() -> None:
    report = await rows_of(Settings())
    second = {"breaker_open": 1.0, "breaker_half_open": 1.0, "breaker_opened": 2.0}
    found = reading(replace(report, second_level=second, second_level_name="redis", state="probing"), None)
    assert value(found, "tandem_cache_breaker_state", "l2", "half_open") == 1
    assert value(found, "tandem_cache_breaker_state", "l2", "open") == 0


async def test_the_near_tier_tells_its_audited_error_and_threshold() -> None:
    report = await rows_of(Settings())
    found = reading(replace(report, near=NEAR), None)
    assert value(found, "tandem_near_served_total") == 7
    assert value(found, "tandem_near_error_ratio") == 0.25
    assert value(found, "tandem_near_error_bound_ratio") == 0.53
    assert value(found, "tandem_near_threshold_cosine") == 0.97
    assert found["tandem_near_refused_total"] == {("numbers",): 5, ("negation",): 2}
    unproven = reading(replace(report, near=NEAR | {"serving": 0, "threshold": -1.0, "audited": 0}), None)
    assert found["tandem_near_tenants"] == {("served",): 1, ("learning",): 2}
    assert unproven["tandem_near_tenants"] == {("served",): 0, ("learning",): 3}
    assert unproven["tandem_near_threshold_cosine"] == unproven["tandem_near_error_ratio"] == {}


async def test_semantic_audits_are_counted() -> None:
    semantic = semantic_of(Settings())
    vector = np.ones(4, np.float32)
    semantic.store(HERE, Item(vector=vector, payload=b"1"))
    for right in (True, True, False):
        lookup = semantic.cache.lookup_verified(HERE, vector, Promise(0.1))
        assert lookup.lookup_id is not None
        semantic.cache.feedback(HERE, lookup.lookup_id, right)
    found = reading(None, semantic)
    await semantic.close()
    assert found["tandem_semantic_audits_total"] == {("right",): 2, ("wrong",): 1}
    assert value(found, "tandem_semantic_lookups_total") == 3
    assert value(found, "tandem_semantic_alarms_total") == 0
    assert value(found, "tandem_semantic_entries") == 1
    assert value(found, "tandem_semantic_up") == 1


async def test_sharing_over_a_redis_that_is_away_is_down() -> None:
    semantic = semantic_of(Settings(semantic_cache_redis=NOWHERE))
    assert value(reading(None, semantic), "tandem_federation_up") == 1, "nobody needs it yet"
    semantic.store(HERE, Item(vector=np.ones(4, np.float32), payload=b"1"))
    await until(lambda: not value(reading(None, semantic), "tandem_federation_up"))
    found = reading(None, semantic)
    await semantic.close()
    assert value(found, "tandem_federation_faults_total", "errors") >= 1
    assert value(found, "tandem_federation_namespaces") == 1
    assert value(found, "tandem_federation_unsent") == 1


@pytest.mark.parametrize("kind", ["errors", "unsent", "unread", "damaged", "refused", "stale", "mismatched"])
async def test_each_fault_of_sharing_has_a_series_before_it_happens(kind: str) -> None:
    semantic = semantic_of(Settings(semantic_cache_redis=NOWHERE))
    found = reading(None, semantic)
    await semantic.close()
    assert value(found, "tandem_federation_faults_total", kind) == 0
