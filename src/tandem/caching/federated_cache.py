"""A semantic cache that instances share: a vector in, the value behind the nearest known vector out."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.caching.base import Key
from tandem.caching.breaker import Breaker, BreakerOptions
from tandem.caching.federated import Federation
from tandem.caching.federated_outbox import Outbox, end, ended, persist
from tandem.caching.federated_replica import IndexReplica
from tandem.caching.federated_values import Values
from tandem.caching.federated_wire import Addition
from tandem.clock import Clock
from tandem.errors import ConfigError

V = TypeVar("V")


class Hit(msgspec.Struct, Generic[V], frozen=True):
    """What was found: ``cosine`` of the vector that was asked for with the one that is kept, as it is kept."""

    key: Key
    cosine: float
    note: bytes
    value: V


class Removal(msgspec.Struct, frozen=True):
    """A key that is to be forgotten everywhere, and since when, by the calendar; None where that is not announced."""

    key: Key
    wall_s: float | None


class CacheOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``candidates``: neighbours whose values are fetched, for the case that the nearest one's is gone. ``at_hand``:
    values kept in this process, for ``at_hand_s``: as long an instance may serve what others removed, if it does not
    hear of it. ``queue_entries`` may wait to be shared, ``batch_entries`` go at once."""

    candidates: int = 4
    at_hand: int = 1024
    at_hand_s: float = 60.0
    queue_entries: int = 10_000
    batch_entries: int = 64

    def __post_init__(self) -> None:
        if min(msgspec.structs.astuple(self)) <= 0:
            raise ConfigError("all options of a federated cache are over 0")


class FederatedCache(Generic[V]):
    """Looks up in this instance's copy, and fetches values from where all instances keep them. Stays useful alone."""

    def __init__(
        self, federation: Federation, replica: IndexReplica, values: Values[V], options: CacheOptions, clock: Clock
    ) -> None:
        """``replica`` is the federation's."""
        self.counters: Counter[str] = Counter()
        self.federation = federation
        self._replica = replica
        self._values = values
        self._options = options
        self._clock = clock
        self._at_hand: OrderedDict[Key, tuple[float, V]] = OrderedDict()
        # What to share, or to forget.
        self._outbox: Outbox[tuple[Addition, V] | Removal] = Outbox(
            self._share, entries=options.queue_entries, batch=options.batch_entries
        )
        self._breaker = Breaker("Sharing federated values", BreakerOptions(most_s=2.0))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """As ``Federation.start``, which it calls."""
        self.federation.start()
        sharing = persist(self._outbox.step, self._breaker, self._clock, self._failed)
        self._task = asyncio.create_task(sharing, name="federated share")
        self._task.add_done_callback(ended)

    async def lookup(self, row: NDArray[np.float32], bound: float) -> Hit[V] | None:
        """The value of the nearest entry with a cosine of at least ``bound`` to ``row`` float32 [d] whose value can be
        had; None when there is none. Raises ValueError for a row that has no direction, and nothing else."""
        found = self._replica.search(row, self._options.candidates, bound)
        if not found:
            self.counters["misses"] += 1
            return None
        values = await self._fetch([key for key, _ in found])
        for key, cosine in found:
            if key in values:
                self._replica.used(key)
                self.counters["hits"] += 1
                return Hit(key, cosine, self._replica.note(key), values[key])
        self.counters["misses"] += 1
        return None

    def store(self, key: Key, row: NDArray[np.float32], value: V, note: bytes = b"") -> None:
        """Keep a value here at once, and share it soon. Raises ValueError for a row that has no direction, or a key or
        note of a length that the federation does not take."""
        if key in self._replica:
            # Another instance had it first; what it kept is as good.
            self.counters["known"] += 1
            return
        self.federation.wire.require(key, note)
        (addition,) = self._replica.add([key], row[None, :], [note])
        self._hold(key, value)
        self._outbox.put((addition, value))
        self.counters["stored"] += 1

    def remove(self, keys: Sequence[Key], wall_s: float | None = None) -> None:
        """Forget entries here at once, and everywhere soon; ``wall_s``: since when, by the calendar; None is now.
        Raises ValueError for a key of another length."""
        for key in keys:
            self.federation.wire.require(key)
        self._forget(keys, self._clock.wall() if wall_s is None else wall_s)

    def discard(self, keys: Sequence[Key]) -> None:
        """Forget entries here at once, and their values soon, and announce nothing: for what the others are told in
        one word."""
        self._forget(keys, None)

    async def close(self) -> None:
        """Share what waits if that is quick, then end. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            await end([task])
            if self._breaker.closed and self.federation.drain_s > 0:
                with suppress(OSError):
                    await self._outbox.drain(self.federation.drain_s)
        await self.federation.close()

    def statistics(self) -> dict[str, float]:
        """The federation's, and what became of look-ups."""
        own = {name: float(count) for name, count in self.counters.items()}
        return self.federation.statistics() | own | {"unshared": float(len(self._outbox))}

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        if self._task is not None and self._task.done():
            return f"{self._task.get_name()} has ended: a bug, see the log"
        state = self.federation.state()
        return self._breaker.state(self._clock.now()) if state == "ok" else state

    async def _fetch(self, keys: list[Key]) -> dict[Key, V]:
        """Values by key, as far as they can be had. When the nearest one's is at hand nothing is waited for."""
        values = {key: held[1] for key in keys if (held := self._held(key)) is not None}
        if keys[0] in values:
            self.counters["at_hand"] += 1
            return values
        wanted = [key for key in keys if key not in values]
        try:
            fetched = await self._values.get(wanted)
        except OSError as error:
            self._failed(error)
            return values
        self.counters["fetched"] += 1
        for key, value in zip(wanted, fetched, strict=True):
            if value is not None:
                self._hold(key, value)
                values[key] = value
        # Expired, evicted, or announced by somebody who lied: without its value an entry only stands in the way.
        self.counters["stale"] += self._replica.remove([key for key in wanted if key not in values])
        return values

    async def _share(self, entries: list[tuple[Addition, V] | Removal]) -> None:
        # First what is to go: what was stored again after it was removed is to stay. And what was removed after it was
        # stored, perhaps while its value was on its way, is not announced.
        removals = [entry for entry in entries if isinstance(entry, Removal)]
        if removals:
            await self._values.delete(list(dict.fromkeys(entry.key for entry in removals)))
        added = [entry for entry in entries if not isinstance(entry, Removal) and entry[0].key in self._replica]
        if added:
            await self._values.put([addition.key for addition, _ in added], [value for _, value in added])
        told = {entry.key: entry.wall_s for entry in removals if entry.wall_s is not None}
        self.federation.announce([one for one, _ in added if one.key in self._replica], list(told), told)

    def _forget(self, keys: Sequence[Key], wall_s: float | None) -> None:
        self._replica.remove(keys)
        for key in keys:
            self._at_hand.pop(key, None)
            self._outbox.put(Removal(key, wall_s))

    def _held(self, key: Key) -> tuple[float, V] | None:
        held = self._at_hand.get(key)
        if held is None or held[0] < self._clock.now():
            return None
        self._at_hand.move_to_end(key)
        return held

    def _hold(self, key: Key, value: V) -> None:
        self._at_hand[key] = (self._clock.now() + self._options.at_hand_s, value)
        self._at_hand.move_to_end(key)
        if len(self._at_hand) > self._options.at_hand:
            self._at_hand.popitem(last=False)

    def _failed(self, error: OSError) -> None:
        self.counters["errors"] += 1
