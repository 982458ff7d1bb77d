"""A semantic cache with its journal, and what has to be done now and then so that both stay in shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tandem.clock import Clock
from tandem.semantic.base import SemanticOptions
from tandem.semantic.cache import SemanticCache
from tandem.semantic.journal import Journal
from tandem.vectors.base import Index

# So much is lost at the most when the power goes.
_EVERY_S = 1.0


class SemanticService:
    """Of one event loop. ``folder`` None: it lives in memory alone."""

    def __init__(
        self, options: SemanticOptions, make_index: Callable[[int], Index], clock: Clock, folder: Path | None
    ) -> None:
        """Reads what an earlier process wrote, which may take seconds. Raises ConfigError for a folder that can not be
        used."""
        self._journal = None if folder is None else Journal(folder)
        self.cache = SemanticCache(options, make_index, clock, self._journal)
        self._watching: asyncio.Task[None] | None = None
        if self._journal is not None:
            self.cache.restore(self._journal.records)

    def start(self) -> None:
        """Look after it from now on."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        return "ok" if self._journal is None else self._journal.state()

    async def close(self) -> None:
        """Settle what was written. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)
        self.cache.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            self.cache.sweep()
            journal = self._journal
            if journal is None:
                continue
            await asyncio.to_thread(journal.sync)
            if journal.wants_compaction(self.cache.statistics().bytes):
                await asyncio.to_thread(journal.compaction(self.cache.serials()))
