"""An instance's part in one shared namespace: what it writes for others, and what their news does here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import inf
from typing import Protocol

import msgspec

from tandem.caching.base import Key
from tandem.caching.federated import Federation, FederationOptions
from tandem.caching.federated_board import Board, BoardOptions, RedisBoard, connect
from tandem.caching.federated_cache import CacheOptions, FederatedCache
from tandem.caching.federated_replica import IndexReplica
from tandem.caching.federated_snapshot import SnapshotOptions
from tandem.caching.federated_values import RedisValues, Values, ValuesOptions
from tandem.caching.federated_wire import KEY_BYTES, Addition, Scope, Wire
from tandem.clock import Clock
from tandem.errors import ConfigError
from tandem.semantic.base import Namespace, Vector
from tandem.semantic.cache import SemanticCache
from tandem.vectors import IndexOptions, best_index

_WEEK_S = 7 * 86_400.0
# A key that says: all that was stored before this moment is gone. No entry's key begins so, but one in 2**64.
_EMPTIED = blake2b(b"the namespace was emptied", digest_size=8).digest()
_MICRO = 1e6
GAUGES = frozenset({"entries", "waiting", "unshared"})
SINGLE = frozenset({"newest_wall_s", "behind_s", "peers"})


class SharingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``namespaces``: so many are shared at once; of the tenant that has the most, the one used last goes first.
    ``entries``: of each, so many are known here. ``value_bytes``: a payload with its text that is longer stays on its
    instance. ``unshared``: what is stored while so many wait to be shared stays there, too. ``secret``: all instances
    must have the same; at most 64 bytes."""

    namespaces: int = 64
    entries: int = 20_000
    value_bytes: int = 1 << 16
    unshared: int = 2048
    secret: bytes = b""

    def __post_init__(self) -> None:
        if min(self.namespaces, self.entries, self.value_bytes, self.unshared) < 1:
            raise ConfigError("namespaces, entries, value_bytes and unshared of shared semantic caches are over 0")


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What travels with a vector. Times are the calendar's, seconds, of the instance that stored it. ``digest`` tells
    whether a value is the one that was stored with this note."""

    id: str
    stored_s: float
    expires_s: float | None
    digest: bytes

    def key(self) -> Key:
        """The same on every instance, so that each can delete what another stored."""
        return key_of(self.id)


class Value(msgspec.Struct, frozen=True, array_like=True):
    """What lies in Redis. The text is here and not in the note: it may be long, and only a hit needs it."""

    payload: bytes
    text: str | None

    def digest(self) -> bytes:
        """8 bytes."""
        return blake2b(msgspec.msgpack.encode(self), digest_size=8).digest()


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


class Copy:
    """The replica as a federation sees it: what others say is done to the instance's own cache, too."""

    def __init__(self, replica: IndexReplica, cache: SemanticCache, namespace: Namespace, clock: Clock) -> None:
        self.replica = replica
        self.emptied_s = -inf
        """What was stored by then is gone."""
        self._cache = cache
        self._namespace = namespace
        self._clock = clock

    def __len__(self) -> int:
        return len(self.replica)

    def contents(self, newest: int) -> Iterator[Addition]:
        """As ``Replica``."""
        return self.replica.contents(newest)

    def fold(self, added: Sequence[Addition], removed: Sequence[Key]) -> int:
        """As ``Replica``. An addition without a note of ours is refused."""
        emptied = [key for key in removed if key.startswith(_EMPTIED)]
        if emptied:
            self._empty(max(int.from_bytes(key[len(_EMPTIED) :], "big") for key in emptied) / _MICRO)
        gone = [note.id for key in removed if (note := read_note(self.replica.note(key))) is not None]
        fresh: list[Addition] = []
        refused = 0
        for one in added:
            note = read_note(one.note)
            if note is None or note.key() != one.key:
                refused += 1
            elif note.stored_s > self.emptied_s:
                fresh.append(one)
                if self._is_outdated(note):
                    gone.append(note.id)
        if gone:
            self._cache.delete(self._namespace, gone)
        return refused + self.replica.fold(fresh, removed)

    def notes(self) -> dict[Key, Note]:
        """All of them, by key."""
        notes = ((one.key, read_note(one.note)) for one in self.replica.contents(len(self.replica)))
        return {key: note for key, note in notes if note is not None}

    def _empty(self, until_s: float) -> None:
        # Not later than now: who has a calendar that is years ahead must not empty the namespace for as long.
        until_s = min(until_s, self._clock.wall())
        self.emptied_s = max(self.emptied_s, until_s)
        self.replica.remove([key for key, note in self.notes().items() if note.stored_s <= until_s])
        age_s = self._clock.wall() - self._clock.now()
        own = [entry.id for entry in self._cache.kept(self._namespace) if entry.stored_s + age_s <= until_s]
        if own:
            self._cache.delete(self._namespace, own)

    def _is_outdated(self, note: Note) -> bool:
        """Whether the own cache has this id with something else, from before."""
        age_s = self._clock.wall() - self._clock.now()
        return any(
            entry.stored_s + age_s < note.stored_s and Value(entry.payload, entry.text).digest() != note.digest
            for entry in self._cache.kept(self._namespace, [note.id])
        )


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
        self._replica = IndexReplica(self._index, rows.storage, options.entries)
        self._copy = Copy(self._replica, cache, namespace, clock)
        scope = scope_of(namespace, rows.storage, self._replica.signature_bytes)
        queue = 2 * options.entries  # All that is known may have to be forgotten, and be stored anew.
        snapshots = SnapshotOptions(every=max(options.entries // 4, 1), newest=options.entries)
        federation = Federation(
            meeting.board(scope),
            scope,
            self._copy,
            FederationOptions(queue_entries=queue, secret=options.secret, snapshots=snapshots),
            clock,
        )
        # At hand for less time than by default: so long the old value of an entry that was replaced makes it a miss.
        at_hand = CacheOptions(at_hand=256, at_hand_s=10.0, queue_entries=queue)
        values = meeting.values(federation.wire)
        self.cache: FederatedCache[bytes] = FederatedCache(federation, self._replica, values, at_hand, clock)

    def start(self) -> None:
        """Once, within the event loop."""
        self.cache.start()

    def share(self, note: Note, unit: Vector, value: bytes) -> None:
        """Keep a value under a vector of length 1 here, and tell the others soon."""
        self.cache.store(note.key(), unit, value, msgspec.msgpack.encode(note))

    def withdraw(self, key: Key) -> None:
        """Take back what is known of ``key``, here and everywhere."""
        if key in self._replica:
            self.cache.remove([key])

    def drop(self, key: Key) -> None:
        """Forget it here. For what every instance finds out for itself."""
        self._replica.remove([key])

    def forget(self, ids: list[str] | None) -> set[str]:
        """Forget entries of these ids, or all that was stored until now, here and everywhere. Which ones were known."""
        if ids is not None:
            known = {one for one in ids if key_of(one) in self._replica}
            # Another instance may know those that we have not heard of.
            self.cache.remove([key_of(one) for one in dict.fromkeys(ids)])
            return known
        notes = self._copy.notes()
        now_s = self._copy.emptied_s = self._clock.wall()
        self.cache.remove([*notes, _EMPTIED + int(now_s * _MICRO).to_bytes(8, "big")])
        return {note.id for note in notes.values()}

    def unshared(self) -> int:
        """How many entries wait to be shared."""
        return int(self.cache.statistics()["unshared"])

    def statistics(self) -> dict[str, float]:
        """``FederatedCache.statistics``: of these, ``GAUGES`` end with the namespace, and ``SINGLE`` can not be added
        up over namespaces."""
        return self.cache.statistics()

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        return self.cache.federation.state()

    async def close(self) -> None:
        """Share what waits if that is quick, then end. Idempotent."""
        await self.cache.close()
        self._index.close()


def scope_of(namespace: Namespace, storage: str, signature_bytes: int) -> Scope:
    """Who share: instances that serve this model, tenant and namespace, and keep vectors of one kind and length."""
    whose = msgspec.json.encode((namespace.tenant, namespace.name)).decode()
    return Scope(model=namespace.model, namespace=whose, codec=storage, signature_bytes=signature_bytes)


def key_of(entry_id: str) -> Key:
    """16 bytes."""
    return blake2b(entry_id.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def read_note(data: bytes) -> Note | None:
    """None for what is none."""
    try:
        return msgspec.msgpack.decode(data, type=Note)
    except msgspec.DecodeError:
        return None


def read_value(data: bytes) -> Value | None:
    """None for what is none."""
    try:
        return msgspec.msgpack.decode(data, type=Value)
    except msgspec.DecodeError:
        return None
