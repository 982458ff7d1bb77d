"""How long memory takes for a text that it has, in the engine itself."""

from __future__ import annotations

import asyncio
import gc

import msgspec
import numpy as np

from tandem.build import build_engine
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.types import EmbedRequest

_CALLS = 50_000


def time_hits(settings: Settings, texts: list[str]) -> tuple[float, float]:
    """p50 in microseconds: of hash and look-up, and of the engine's whole call with its checks and normalising."""
    engine = build_engine(msgspec.structs.replace(settings, backend="fake"), SystemClock())
    return asyncio.run(_time(engine, texts))


async def _time(engine: Engine, texts: list[str]) -> tuple[float, float]:
    await engine.start()
    assert engine.recall is not None
    requests = [EmbedRequest(inputs=[text], normalize=True) for text in texts]
    for request in requests:
        await engine.embed(request)
    await asyncio.sleep(0.05)
    now, recall = SystemClock.now, engine.recall
    gc.collect()
    gc.disable()
    looked_up, asked = np.zeros(_CALLS), np.zeros(_CALLS)
    for index in range(_CALLS):
        request = requests[index % len(requests)]
        begun = now()
        (entry,) = recall.cache.now(recall.text_keys(request))
        looked_up[index] = now() - begun
        assert entry is not None
        begun = now()
        engine.ask(request)
        asked[index] = now() - begun
    gc.enable()
    await engine.close()
    return float(np.median(looked_up)) * 1e6, float(np.median(asked)) * 1e6
