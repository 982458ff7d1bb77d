"""An engine with its caches, over a real tokenizer, scheduler and worker, and the fake backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tandem.admission import EngineOptions
from tandem.caches import build_recall
from tandem.caching.base import Entry, Key
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.types import EmbedRequest, EmbedResult, Source
from tests.engines import Device, make_engine


class Shelf:
    """A second level in a dict."""

    name = "shelf"

    def __init__(self) -> None:
        self.held: dict[Key, Entry] = {}
        self.asked: list[Key] = []
        self.closed = 0
        self.can_clear = True

    async def get(self, keys: Sequence[Key]) -> list[Entry | None]:
        self.asked += keys
        return [self.held.get(key) for key in keys]

    async def put(self, keys: Sequence[Key], entries: Sequence[Entry]) -> None:
        self.held.update(zip(keys, entries, strict=True))

    async def clear(self) -> str:
        if not self.can_clear:
            return "can not be reached"
        self.held.clear()
        return ""

    async def close(self) -> None:
        self.closed += 1

    def statistics(self) -> dict[str, float]:
        return {}

    def state(self) -> str:
        return "ok"


async def settled() -> None:
    """Until what was computed is kept."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def cached_engine(
    device: Device,
    *,
    store: Shelf | None = None,
    cache_bytes: int = 1 << 20,
    options: EngineOptions | None = None,
) -> Engine:
    engine = make_engine(device, options)
    settings = Settings(cache_bytes=cache_bytes)
    engine.recall = build_recall(settings, engine.model, engine.intake, engine.loop, SystemClock())
    assert engine.recall is not None
    engine.recall.cache.store = store
    return engine


def known(engine: Engine, request: EmbedRequest) -> bool:
    """Whether memory has all of it."""
    answer = engine.ask(request)
    if isinstance(answer, EmbedResult):
        return True
    answer.close()
    return False


def sources(result: EmbedResult) -> list[Source]:
    assert result.sources is not None
    return result.sources
