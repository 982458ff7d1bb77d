"""The exact tiers as one: L1 in memory, aliases that lead into it, a second level behind it.

``now`` answers from memory at once, ``later`` from the second level. What was computed, or found there, is kept off the
path of who asked for it: rows gather, until the event loop's next turn or for a moment, and go in together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice

from tandem.caching.aliases import Aliases
from tandem.caching.base import Entry, EntryStore, Key
from tandem.caching.l1 import L1Cache
from tandem.caching.tally import Tally
from tandem.clock import Clock
from tandem.errors import DeadlineExceeded, ServiceError
from tandem.types import Source

# Rows kept in one turn of the event loop: about 2 ms.
_AT_ONCE = 256
# Rows that were found gather for so long: to put one into memory by itself takes as long as to fetch it, and ten
# together a fifth of that each. Meanwhile they answer from where they wait.
_FOUND_S = 0.002
_MOST_TOKENS = 2**31 - 1
# How long clearing the second level may take, which is looked through whole.
_CLEAR_S = 30.0


class ExactCache:
    """Of one event loop. ``store`` None: there is no second level."""

    def __init__(self, l1: L1Cache, aliases: Aliases, store: EntryStore | None, clock: Clock) -> None:
        self.l1 = l1
        self.store = store
        self.aliases = aliases
        self.tally = Tally(clock)
        # With each its tenant, and whether the second level does not have it.
        self._fresh: dict[Key, tuple[Entry, str, bool]] = {}
        self._flushing: asyncio.Handle | None = None
        self._is_soon = False
        self._writing: set[asyncio.Task[None]] = set()

    def one(self, key: Key) -> Entry | None:
        """From memory: the row under ``key``, or under what it is an alias of."""
        entry = self.l1.get(key)
        if entry is None and (target := self.aliases.get(key)) is not None:
            entry = self.l1.get(target)
        return self._waiting(key) if entry is None and self._fresh else entry

    def borrow(self, key: Key) -> Entry | None:
        """The same for who does not ask for the text of this key; not counted."""
        entry = self.l1.borrow(key)
        if entry is None and (target := self.aliases.get(key)) is not None:
            entry = self.l1.borrow(target)
        return self._waiting(key) if entry is None and self._fresh else entry

    def now(self, keys: Sequence[Key]) -> list[Entry | None]:
        """The same for several."""
        if len(keys) == 1:
            return [self.one(keys[0])]
        found = self.l1.get_many(keys)
        if len(self.aliases):
            for index, entry in enumerate(found):
                if entry is None and (target := self.aliases.get(keys[index])) is not None:
                    found[index] = self.l1.get(target)
        if self._fresh:
            found = [self._waiting(key) if entry is None else entry for key, entry in zip(keys, found, strict=True)]
        return found

    async def later(self, keys: Sequence[Key], tenant: str) -> list[Entry | None]:
        """From the second level; what is there goes into memory too."""
        if self.store is None:
            return [None] * len(keys)
        with self.tally.timed(Source.L2):
            found = await self.store.get(keys)
        # No text has so many tokens; a forged row may say so, and memory counts them in 31 bits.
        found = [None if entry is not None and entry.tokens > _MOST_TOKENS else entry for entry in found]
        for key, entry in zip(keys, found, strict=True):
            if entry is not None:
                self._put_off(key, entry, tenant, is_new=False)
        return found

    def keep(self, key: Key, entry: Entry, tenant: str) -> None:
        """A row that the model has computed."""
        self._put_off(key, entry, tenant, is_new=True)

    async def clear(self) -> None:
        """Forget all rows of this model, also where others share them. Raises DeadlineExceeded when the second level
        takes too long, ServiceError when it can not do it; memory is cleared all the same."""
        await self._settled()
        why = ""
        try:
            if self.store is not None:
                async with asyncio.timeout(_CLEAR_S):
                    why = await self.store.clear()
        except TimeoutError:
            words = f"memory is cleared; the second level was not done with it in {_CLEAR_S:g} s"
            raise DeadlineExceeded(words) from None
        finally:
            # Afterwards: meanwhile rows of the second level may have come up again.
            self._fresh.clear()
            self.l1.clear()
            self.aliases.clear()
        if why:
            raise ServiceError(f"memory is cleared; the second level is not, as it {why}")

    async def close(self) -> None:
        """Let what is being written end. Idempotent."""
        await self._settled()
        if self.store is not None:
            await self.store.close()

    async def _settled(self) -> None:
        """Until what was computed is in memory, and handed to the second level."""
        while self._fresh:
            self._flush()
        if self._writing:
            await asyncio.wait(self._writing)

    def _waiting(self, key: Key) -> Entry | None:
        """A row that is on its way into memory; the caller's own, as all are."""
        held = self._fresh.get(key)
        # Its own first: what it once led to may be gone.
        if held is None and (target := self.aliases.get(key)) is not None:
            held = self._fresh.get(target)
        return None if held is None else _own(held[0])

    def _put_off(self, key: Key, entry: Entry, tenant: str, is_new: bool) -> None:
        if is_new or key not in self._fresh:
            # Who was given the row may write into it.
            self._fresh[key] = _own(entry), tenant, is_new
        if self._flushing is None or (is_new and not self._is_soon):
            self._flush_later(0.0 if is_new else _FOUND_S)

    def _flush_later(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._flushing is not None:
            self._flushing.cancel()
        self._is_soon = not seconds
        self._flushing = loop.call_later(seconds, self._flush) if seconds else loop.call_soon(self._flush)

    def _flush(self) -> None:
        keys = list(islice(self._fresh, _AT_ONCE))
        fresh = [(key, *self._fresh.pop(key)) for key in keys]
        self._flushing = None
        if self._fresh:
            self._flush_later(0.0)
        for tenant in dict.fromkeys(tenant for _, _, tenant, _ in fresh):
            own = [(key, entry) for key, entry, whose, _ in fresh if whose == tenant]
            self.l1.put([key for key, _ in own], [entry for _, entry in own], tenant)
        computed = [(key, entry) for key, entry, _, is_new in fresh if is_new]
        if computed and self.store is not None:
            put = self.store.put([key for key, _ in computed], [entry for _, entry in computed])
            task = asyncio.get_running_loop().create_task(put)
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)


def _own(entry: Entry) -> Entry:
    return Entry(entry.row.copy(), entry.tokens, entry.tier)
