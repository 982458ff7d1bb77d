"""Row E2: 10,000 requests over 1,000 texts through each tier alone, and through all together.

One caller, one text a request, so that a latency is what a text costs and not what a queue does. Each run has an engine
of its own, cold; a run's hits are those that its caches counted.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.build import build_engine
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.types import EmbedRequest, Source

# Of the requests without any cache so many are made: their latency does not depend on what came before.
_UNCACHED = 1500


class TierRun(msgspec.Struct, frozen=True):
    """One way through the requests. ``hits``: texts by where they came from. Latencies in seconds; ``medians`` by where
    the text came from. ``row_bytes``: what the caches of this process hold for each row. ``least_cosine`` to the rows
    without a cache."""

    name: str
    requests: int
    hits: dict[str, int]
    mean_s: float
    p50_s: float
    p99_s: float
    medians: dict[str, float]
    row_bytes: float | None
    least_cosine: float

    @property
    def hit_rate(self) -> float:
        return 1 - self.hits.get(Source.MISS.value, 0) / max(1, sum(self.hits.values()))

    @property
    def hit_s(self) -> float:
        """What a hit usually takes: each tier's median, by its share of the hits. Of all hits together the median would
        be one tier's or another's, by chance; a mean would be the noise of the machine's."""
        hits = {source: count for source, count in self.hits.items() if count and source != Source.MISS.value}
        return sum(count * self.medians[source] for source, count in hits.items()) / max(1, sum(hits.values()))


class Requests(msgspec.Struct, frozen=True):
    """``order``: which of ``texts`` each request asks for."""

    name: str
    texts: list[str]
    order: NDArray[np.int64]


def drawn(texts: Sequence[str], count: int, zipf: bool, seed: int) -> Requests:
    """``count`` requests in which each text comes at least once: every text, and repeats drawn evenly or by Zipf's law
    (exponent 1), shuffled."""
    rng = np.random.default_rng([seed, 5])
    n = len(texts)
    weights = 1 / np.arange(1, n + 1) if zipf else np.ones(n)
    repeats = rng.choice(n, count - n, p=weights / weights.sum())
    order = rng.permutation(np.concatenate([np.arange(n), repeats]))
    return Requests("Zipf" if zipf else "uniform", list(texts), order)


def run_tier(name: str, settings: Settings, requests: Requests, reference: NDArray[np.float32] | None) -> TierRun:
    """Start an engine, ask, and end it. Raises what building an engine raises."""
    engine = build_engine(settings, SystemClock())
    gc.collect()
    return asyncio.run(_run(name, engine, requests, reference))


async def _run(name: str, engine: Engine, requests: Requests, reference: NDArray[np.float32] | None) -> TierRun:
    await engine.start()
    if engine.recall is not None and isinstance(engine.recall.cache.store, SecondLevel):
        await engine.recall.cache.store.ready()
    order = requests.order.tolist()[: None if engine.recall else _UNCACHED]
    seconds = np.zeros(len(order))
    by: dict[str, list[float]] = {}
    least = 1.0
    for index, place in enumerate(order):
        begun = SystemClock.now()
        result = await engine.embed(EmbedRequest(inputs=[requests.texts[place]], normalize=True))
        seconds[index] = SystemClock.now() - begun
        by.setdefault((result.sources or [Source.MISS])[0].value, []).append(float(seconds[index]))
        if reference is not None:
            least = min(least, float(np.dot(result.rows[0], reference[place])))
        if index % 100 == 0:
            await asyncio.sleep(0.002)  # what is written off the path is not this caller's to pay for
    report = engine.recall.report() if engine.recall else None
    tiers = {source: tier.texts for source, tier in report.tiers.items()} if report else {"miss": len(order)}
    memory = report.memory if report else {}
    # Of a memory that is off, what is left is no row's.
    held = memory["bytes"] / memory["entries"] if memory.get("entries", 0) > len(requests.texts) / 4 else None
    await engine.close()
    return TierRun(
        name=name,
        requests=len(order),
        hits=tiers,
        mean_s=float(seconds.mean()),
        p50_s=float(np.median(seconds)),
        p99_s=float(np.quantile(seconds, 0.99)),
        medians={source: float(np.median(some)) for source, some in by.items()},
        row_bytes=held,
        least_cosine=least,
    )


def plain_dict_bytes(texts: Sequence[str], dims: int) -> float:
    """What a row costs in the cache that everybody writes first: a dict from the text to an array of float32."""
    import tracemalloc

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = {text + " ": np.ones(dims, np.float32) for text in texts}
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / max(1, len(held))


def settings_of(base: Settings, dims: int, texts: int, redis: str | None, folder: Path) -> dict[str, Settings]:
    """The ways: without, each tier alone, and all together, where L1 has room for half of the texts."""
    replace = msgspec.structs.replace
    half = int(0.5 * texts * (dims + 64) / 0.9) + (40 << 10)
    ways = {
        "no cache": replace(base, cache="off"),
        "L1 (float32)": base,
        "L1 (int8)": replace(base, cache_rows="int8"),
        "disk": replace(base, cache_bytes=0, cache_l2="disk", cache_dir=str(folder / "alone"), cache_rows="int16"),
    }
    if redis is not None:
        ways["Redis"] = replace(base, cache_bytes=0, cache_l2=redis, cache_rows="int16")
        ways["all: L1 (half of the texts, int8), Redis"] = replace(
            base, cache_bytes=half, cache_l2=redis, cache_rows="int8"
        )
    return ways
