"""The near-duplicate tier in a real engine: it learns from what is computed, and serves only who asks for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from threading import get_ident

import msgspec
import numpy as np
import pytest

from tandem.build import build_engine
from tandem.caching.aliases import Aliases
from tandem.caching.base import Entry
from tandem.caching.exact import ExactCache
from tandem.caching.l1 import L1Cache, L1Options
from tandem.caching.near_duplicate import NOT_LOOKED, Candidate, NearOptions, Query
from tandem.caching.signatures import MinHashSigner
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.errors import ConfigError
from tandem.near import NearDuplicates, in_a_thread
from tandem.types import CacheMode, EmbedResult, Source, Tier
from tandem.verification import GuardOptions, Promise
from tests.engines import asking, rows, write_word_model
from tests.entry_rows import DIMS, entries, keys


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        model=str(write_word_model(tmp_path / "tiny")),
        store_dir=str(tmp_path / "home" / "models"),
        backend="onnxruntime",
        threads=1,
        warm=False,
        near_duplicates="minhash",
        # A tiny random model tells texts of the same words apart by little: most labels are right, and it learns soon.
        near_cosine=0.2,
        near_max_error=0.2,
    )


async def taught(engine: Engine) -> list[EmbedResult]:
    """Texts in pairs whose second differs by a full stop, which is no word and no refusal."""
    found = []
    rng = np.random.default_rng(0)
    for _ in range(150):
        text = " ".join(f"w{number}" for number in rng.integers(0, 90, 8))
        found += [await engine.embed(asking(variant, cache=CacheMode.NEAR)) for variant in (text, text + " please")]
    return found


async def test_it_serves_once_it_has_learned_and_says_so(settings: Settings) -> None:
    engine = build_engine(settings)
    await engine.start()
    assert engine.recall is not None
    assert engine.recall.near is not None
    options = NearOptions(cosine=0.2, promise=Promise(0.2), audit=GuardOptions(learn_first=50))
    engine.recall.near = NearDuplicates(options, MinHashSigner(), engine.recall.cache)
    results = await taught(engine)
    report = engine.recall.report()
    assert report.near is not None
    assert report.near["labels"] > 50
    served = [result for result in results if result.sources == [Source.NEAR]]
    assert served, report.near_state
    assert all(result.similarity is not None and result.similarity > 0 for result in served)
    assert report.tiers["near-duplicate"].texts == len(served)
    assert results[0].sources == [Source.MISS]
    await engine.close()


async def test_who_does_not_ask_for_it_gets_the_models_own_row(settings: Settings) -> None:
    engine = build_engine(settings)
    plain = build_engine(msgspec.structs.replace(settings, near_duplicates="off"))
    for each in (engine, plain):
        await each.start()
    await taught(engine)
    assert engine.recall is not None
    before = engine.recall.report().near
    text = " ".join(f"w{number}" for number in range(8))
    await engine.embed(asking(text))
    exact, wanted = await engine.embed(asking(text + " please")), await plain.embed(asking(text + " please"))
    assert exact.sources == [Source.MISS]
    assert rows(exact).tobytes() == rows(wanted).tobytes()
    after = engine.recall.report().near
    assert before is not None
    assert after is not None
    assert (after["lookups"], after["labels"]) == (before["lookups"], before["labels"]), "nor pays for a look"
    assert after["anchors"] == before["anchors"] + 2, "but others may be answered from his texts"
    for each in (engine, plain):
        await each.close()


async def test_a_tenant_learns_from_his_own_texts_alone(settings: Settings) -> None:
    engine = build_engine(settings)
    await engine.start()
    await taught(engine)
    assert engine.recall is not None
    assert engine.recall.near is not None
    await engine.embed(asking("w1 w2 w3", cache=CacheMode.NEAR, tenant="another"))
    other, own = (engine.recall.near.tier.report(tenant) for tenant in ("another", ""))
    assert other is not None
    assert own is not None
    assert other.learned.labels == 0 < own.learned.labels
    await engine.close()


async def test_a_row_on_its_way_into_memory_serves_and_labels_and_is_no_hit() -> None:
    clock, (key,) = SystemClock(), keys(1)
    cache = ExactCache(L1Cache(L1Options(budget_bytes=1 << 20), DIMS, clock), Aliases(10), None, clock)
    near = NearDuplicates(NearOptions(), MinHashSigner(), cache)
    entry, query = Entry(entries([key])[0].row, 3, Tier.FP32), Query("w1 w2 w3", [1, 2, 3])
    cache.keep(key, entry, "")
    near.learn(query, NOT_LOOKED, key, entry.row)
    nearest = Candidate(key, 0.99)
    for held in (0, 1):
        assert len(cache.l1) == held
        served = near.served(msgspec.structs.replace(NOT_LOOKED, serve=nearest))
        assert served is not None
        assert (served[0].row.tolist(), served[1]) == (entry.row.tolist(), 0.99)
        near.learn(query, msgspec.structs.replace(NOT_LOOKED, audit=True, nearest=nearest), key, entry.row)
        stats = near.tier.statistics()
        assert (stats["anchors"], stats["labelled"]) == (1, held + 1)
        await cache.close()
    assert (cache.l1.statistics()["hits"], cache.l1.statistics()["hit_tokens"]) == (0, 0)
    cache.l1.clear()
    assert near.served(msgspec.structs.replace(NOT_LOOKED, serve=nearest)) is None
    assert len(near.tier) == 0, "one that is gone is no anchor"


async def test_the_static_key_is_fitted_by_another_thread() -> None:
    threads: list[int] = []
    in_a_thread(lambda: threads.append(get_ident()))
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(threads) == 1
    assert threads != [get_ident()]


def test_the_models_own_table_is_found(settings: Settings) -> None:
    engine = build_engine(msgspec.structs.replace(settings, near_duplicates="static"))
    assert engine.recall is not None
    assert engine.recall.near is not None
    engine.halt()


def test_bounds_out_of_range_are_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="near_duplicates"):
        build_engine(msgspec.structs.replace(settings, near_duplicates="magic"))
