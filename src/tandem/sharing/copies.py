"""An instance's part in one shared namespace: what it writes for others, and what their news does here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from tandem.caching.base import Key
from tandem.caching.federated import Federation, FederationOptions
from tandem.caching.federated_board import Board, BoardOptions, RedisBoard, connect
from tandem.caching.federated_cache import CacheOptions, FederatedCache
from tandem.caching.federated_outbox import end, ended
from tandem.caching.federated_replica import IndexReplica, signature_bytes
from tandem.caching.federated_snapshot import SnapshotOptions
from tandem.caching.federated_values import RedisValues, Values, ValuesOptions
from tandem.caching.federated_wire import Scope, Wire
from tandem.clock import Clock
from tandem.errors import ConfigError
from tandem.semantic.base import Namespace, Vector
from tandem.semantic.cache import SemanticCache
from tandem.semantic.space import Entry
from tandem.sharing.notes import Copy, Note, emptied_at, just_before, key_of, scope_of, sliced
from tandem.vectors import IndexOptions, best_index

_WEEK_S = 7 * 86_400.0
GAUGES = frozenset({"entries", "waiting", "unshared"})
SINGLE = frozenset({"newest_wall_s", "behind_s", "peers"})


class SharingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``namespaces``: so many are shared at once; of the tenant that has the most, the one used last goes first.
    ``closing``: while so many are being given up, no other one is taken up, but for a deletion, which waits.
    ``ask_every_s``: how often a look-up in a namespace that nobody here uses makes us ask whether others do.
    ``entries``: of each, so many are known here. ``value_bytes``: a payload with its text that is longer stays on its
    instance. ``unshared``: what is stored while so many wait to be shared stays there, too. ``secret``: all instances
    must have the same; at most 64 bytes."""

    namespaces: int = 64
    closing: int = 8
    ask_every_s: float = 1.0
    entries: int = 20_000
    value_bytes: int = 1 << 16
    unshared: int = 2048
    secret: bytes = b""

    def __post_init__(self) -> None:
        limits = ("namespaces", "closing", "entries", "value_bytes", "unshared")
        if min(getattr(self, name) for name in limits) < 1:
            raise ConfigError(f"{', '.join(limits)} of shared semantic caches are over 0")


class Meeting(Protocol):
    """Where instances meet. ``RedisMeeting`` in service."""

    def board(self, scope: Scope) -> Board:
        """What those of ``scope`` write for each other."""
        ...

    def values(self, wire: Wire) -> Values[bytes]:
        """Where their values lie."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


class RedisMeeting:
    """One client for all namespaces."""

    def __init__(self, url: str, clock: Clock, deadline_s: float = ValuesOptions().deadline_s) -> None:
        """Connects to nothing yet. ``deadline_s``: how long a look-up waits for a value. Raises ConfigError without
        the redis package, or for a URL that is none."""
        self._client = connect(url)
        self._clock = clock
        self._values = ValuesOptions(expire_s=_WEEK_S, deadline_s=deadline_s)

    def board(self, scope: Scope) -> Board:
        return RedisBoard(self._client, scope.id(), BoardOptions(stream_entries=20_000, expire_s=_WEEK_S))

    def values(self, wire: Wire) -> Values[bytes]:
        return RedisValues(self._client, wire, self._values, self._clock)

    async def close(self) -> None:
        await self._client.aclose()


def scope_for(namespace: Namespace, dims: int) -> Scope:
    """Of a namespace with vectors of ``dims``, as ``Member`` keeps them."""
    storage = IndexOptions(dims=dims).storage
    return scope_of(namespace, storage, signature_bytes(storage, dims))


class Member:
    """An instance in one namespace. Belongs to one event loop's thread."""

    def __init__(
        self,
        meeting: Meeting,
        namespace: Namespace,
        dims: int,
        cache: SemanticCache,
        clock: Clock,
        options: SharingOptions,
    ) -> None:
        """``dims``: of the namespace's vectors. ``cache``: the instance's own."""
        rows = IndexOptions(dims=dims)
        self._index = best_index(rows)
        self._clock = clock
        self._own = cache
        self._namespace = namespace
        self._begun = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._replica = IndexReplica(self._index, rows.storage, options.entries)
        self._copy = Copy(self._replica, cache, namespace, clock, self._purge)
        scope = scope_for(namespace, dims)
        queue = 2 * options.entries  # All that is known may have to be forgotten, and be stored anew.
        snapshots = SnapshotOptions(every=max(options.entries // 4, 1), newest=options.entries)
        federation = Federation(
            meeting.board(scope),
            scope,
            self._copy,
            FederationOptions(queue_entries=queue, secret=options.secret, snapshots=snapshots, replay=True),
            clock,
        )
        # At hand for less time than by default: so long the old value of an entry that was replaced makes it a miss.
        at_hand = CacheOptions(at_hand=256, at_hand_s=10.0, queue_entries=queue)
        values = meeting.values(federation.wire)
        self.cache: FederatedCache[bytes] = FederatedCache(federation, self._replica, values, at_hand, clock)

    def start(self) -> None:
        """Once, within the event loop."""
        self._run(self._begin(self._own.kept(self._namespace)))

    def is_gone(self, note: Note) -> bool:
        """Whether it was stored before the namespace was last emptied."""
        return note.stored_s <= self._copy.emptied_s

    def share(self, note: Note, unit: Vector, value: bytes) -> None:
        """Keep a value under a vector of length 1 here, and tell the others soon."""
        self.cache.store(note.key(), unit, value, msgspec.msgpack.encode(note))

    def replace(self, entry_id: str, stored_s: float) -> None:
        """The own cache keeps another entry of this id since then: take back what is known of it, here and everywhere.
        Whether the new one is shared or not, what is deleted elsewhere is to be found here."""
        self._copy.keep([entry_id])
        key = key_of(entry_id)
        self._copy.bury(key, stored_s)
        if key in self._replica:
            self.cache.remove([key], just_before(stored_s))

    def drop(self, key: Key) -> None:
        """Forget it here. For what every instance finds out for itself."""
        self._replica.remove([key])

    async def forget(self, ids: list[str] | None) -> set[str]:
        """Forget entries of these ids, or all that was stored until now, here and everywhere. Nobody finds them from
        now on; which ones were known is told when all have gone."""
        now_s = self._clock.wall()
        if ids is not None:
            known = {one for one in ids if key_of(one) in self._replica}
            # Another instance may know those that we have not heard of.
            keys = [key_of(one) for one in dict.fromkeys(ids)]
            for key in keys:
                self._copy.bury(key, now_s)
            self.cache.remove(keys, now_s)
            return known
        self._copy.emptied_s = now_s
        # One word: to name each entry would take as much of the stream as there are, and push the word off it.
        self.cache.federation.announce_lasting(emptied_at(now_s), now_s)
        return await self._copy.purge(self.cache.discard)

    def unshared(self) -> int:
        """How many entries wait to be shared."""
        return int(self.cache.statistics()["unshared"])

    def statistics(self) -> dict[str, float]:
        """``FederatedCache.statistics``: of these, ``GAUGES`` end with the namespace, and ``SINGLE`` can not be added
        up over namespaces."""
        return self.cache.statistics()

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        return self.cache.state()

    async def close(self) -> None:
        """Share what waits if that is quick, then end. Idempotent."""
        await end(list(self._tasks))
        self._listen()
        await self.cache.close()
        self._index.close()

    async def _begin(self, entries: list[Entry]) -> None:
        """Before others are heard: what is deleted there must be found here."""
        for some in sliced(entries):
            self._copy.keep([entry.id for entry in some])
            await asyncio.sleep(0)
        self._listen()

    def _listen(self) -> None:
        if not self._begun:
            self._begun = True
            self.cache.start()

    def _purge(self) -> None:
        self._run(self._copy.purge(self._replica.remove))

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"shared {self._namespace}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)
