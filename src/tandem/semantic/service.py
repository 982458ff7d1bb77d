"""A semantic cache with its journal, and what has to be done now and then so that both stay in shape."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tandem.clock import Clock
from tandem.semantic.base import SemanticOptions
from tandem.semantic.cache import SemanticCache
from tandem.semantic.journal import Journal
from tandem.vectors.base import Index

log = logging.getLogger("tandem.semantic")


class SemanticService:
    """Of one event loop. ``journal`` None: it lives in memory alone. What waits for a disk is done in a thread."""

    def __init__(
        self,
        options: SemanticOptions,
        make_index: Callable[[int], Index],
        clock: Clock,
        journal: Journal | None,
        every_s: float = 1.0,
    ) -> None:
        """Reads what an earlier process wrote, which may take seconds. ``every_s``: as much is lost at the most when
        the power goes."""
        self._journal = journal
        self.cache = SemanticCache(options, make_index, clock, self._journal)
        self.failures = 0
        """How often its upkeep ended in an error, and was begun anew."""
        self._every_s = every_s
        self._watching: asyncio.Task[None] | None = None
        self._trouble = ""
        self._settling = asyncio.Lock()
        self._asked = self._settled = 0
        if self._journal is not None:
            self.cache.restore(self._journal.records)

    def start(self) -> None:
        """Look after it from now on."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="semantic cache's upkeep")
        self._watching.add_done_callback(self._ended)

    async def settle(self) -> None:
        """When this returns, not even the loss of power undoes what was done to the cache before. Those who ask while
        the disk is at work share its next turn. Raises ServiceError where the disk does not confirm it."""
        journal = self._journal
        if journal is None:
            return
        self._asked += 1
        mine = self._asked
        async with self._settling:
            if self._settled >= mine:
                return
            reached = self._asked
            await asyncio.to_thread(journal.settle)
            self._settled = reached

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        if self._trouble:
            return f"its upkeep fails, {self.failures} times so far: {self._trouble}"
        return "ok" if self._journal is None else self._journal.state()

    async def close(self) -> None:
        """Settle what was written. Idempotent."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)
        self.cache.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            for _ in iter(self.cache.sweep, False):
                await asyncio.sleep(0)
            if self._journal is not None:
                await self._keep(self._journal)
            self._trouble = ""

    async def _keep(self, journal: Journal) -> None:
        await asyncio.to_thread(journal.sync)
        if await asyncio.to_thread(journal.prepare_compaction, self.cache.statistics().bytes):
            await asyncio.to_thread(journal.compaction(self.cache.serials()))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Only a bug ends the upkeep, or the end of the loop. Without it the disk fills and nothing expires, so it is
        begun anew, after the pause that each round begins with."""
        if task is not self._watching:
            return
        if task.cancelled():
            self._trouble = "it was cancelled"
            return
        error = task.exception()
        trouble = f"{type(error).__name__}: {error}"
        if trouble != self._trouble:  # One line for what goes wrong each second.
            log.error("the semantic cache's upkeep has ended and is begun anew", exc_info=error)
        self.failures += 1
        self._trouble = trouble
        self.start()
