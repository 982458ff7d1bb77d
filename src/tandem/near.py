"""Near-duplicates on a request's way: looked for among the texts that have to be computed, served where the request
asks for that, and learned from whatever is computed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tandem.caching.base import Entry, Key
from tandem.caching.exact import ExactCache
from tandem.caching.keys import Context
from tandem.caching.near_duplicate import NOT_LOOKED, Look, NearDuplicateTier, NearOptions, Query
from tandem.caching.signatures import Signer
from tandem.types import Source, TokenIds

log = logging.getLogger("tandem.caching")


def in_a_thread(job: Callable[[], None]) -> None:
    """Beside the running event loop, which waits for it when it ends."""
    asyncio.get_running_loop().run_in_executor(None, job)


class NearDuplicates:
    """The tier over the rows that an exact cache holds in memory. Of one event loop."""

    def __init__(self, options: NearOptions, signer: Signer, cache: ExactCache) -> None:
        self._cache = cache
        self.faults = 0
        self.tier = NearDuplicateTier(options, signer, self._row)

    def look_up(
        self, context: Context, texts: Sequence[str | None], ids: Sequence[TokenIds], *, wanted: bool
    ) -> list[tuple[Query, Look]]:
        """One look-up a text; None is one of which only the ids are known. Where near-duplicates are not ``wanted``
        nothing is looked for, and the texts only become anchors once they are computed."""
        space = "\0".join((context.tenant, context.prompt, str(context.truncate), context.direction.value))
        queries = [Query(text, row, space, context.tenant) for text, row in zip(texts, ids, strict=True)]
        if not wanted:
            return [(query, NOT_LOOKED) for query in queries]
        with self._cache.tally.timed(Source.NEAR):
            return [(query, self.tier.look_up(query)) for query in queries]

    def served(self, look: Look) -> tuple[Entry, float] | None:
        """The row that answers and its predicted cosine, None where the model has to be asked."""
        if look.serve is None:
            return None
        entry = self._cache.borrow(look.serve.key)
        if entry is None:
            self.tier.forget(look.serve.key)
            return None
        return entry, look.serve.similarity

    def learn(self, query: Query, look: Look, key: Key, row: NDArray[np.float32]) -> None:
        """The model's own row of a text that was looked up. What goes wrong costs the tier an anchor, nobody a row."""
        try:
            self.tier.learn(query, look, key, row)
        except (ValueError, KeyError, RuntimeError, MemoryError, np.linalg.LinAlgError):
            self.faults += 1
            log.exception("a text could not be kept among the near-duplicates")

    def _row(self, key: Key) -> NDArray[np.float32] | None:
        entry = self._cache.borrow(key)
        return None if entry is None else entry.row
