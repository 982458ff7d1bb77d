"""What instances that share a semantic cache tell each other of an entry, how they name it, and what such news do."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from math import inf
from typing import TypeVar

import msgspec

from tandem.caching.base import Key
from tandem.caching.federated_replica import IndexReplica
from tandem.caching.federated_wire import KEY_BYTES, Addition, Scope
from tandem.clock import Clock
from tandem.semantic.base import Namespace
from tandem.semantic.cache import SemanticCache
from tandem.semantic.space import Entry

T = TypeVar("T")

# Entries that are looked at in one go, where there may be thousands.
_SLICE = 64
# A key that says: all that was stored before this moment is gone. No entry's key begins so, but one in 2**64.
_EMPTIED = blake2b(b"the namespace was emptied", digest_size=8).digest()
_MICRO = 1e6


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


def scope_of(namespace: Namespace, storage: str, signature_bytes: int) -> Scope:
    """Who share: instances that serve this model, tenant and namespace, and keep vectors of one kind and length."""
    whose = msgspec.json.encode((namespace.tenant, namespace.name)).decode()
    return Scope(model=namespace.model, namespace=whose, codec=storage, signature_bytes=signature_bytes)


def key_of(entry_id: str) -> Key:
    """16 bytes."""
    return blake2b(entry_id.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def emptied_at(wall_s: float) -> Key:
    """Stands in the place of an entry's key and says that all that was stored by then is gone."""
    return _EMPTIED + (int(wall_s * _MICRO) + 1).to_bytes(8, "big")


def emptied_by(keys: Iterable[Key]) -> float:
    """Until when, by the calendar of who said so; -inf where none of ``keys`` says it."""
    said = (key[len(_EMPTIED) :] for key in keys if key.startswith(_EMPTIED))
    return max((int.from_bytes(when, "big") / _MICRO for when in said), default=-inf)


def just_before(stored_s: float) -> float:
    """When what an entry replaces was removed: within the millisecond before the one it was stored in. A removal takes
    what is of its own millisecond, and may be heard of after the entry: told again, or by who was started anew."""
    return (_ms(stored_s) - 0.5) / 1000


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


class Copy:
    """The replica as a federation sees it: what others say is done to the instance's own cache, too.

    A deletion names an entry by its key alone, and the own cache may have one that the replica never had, as it was
    too long to be shared, or has no more. So the ids of what is kept here are known by key as well.
    """

    def __init__(
        self,
        replica: IndexReplica,
        cache: SemanticCache,
        namespace: Namespace,
        clock: Clock,
        emptied: Callable[[], None],
    ) -> None:
        """``emptied`` is called when others have emptied the namespace, and sees to it that ``purge`` runs."""
        self.replica = replica
        self.emptied_s = -inf
        """What was stored by then is gone, also where it is still here."""
        self._cache = cache
        self._namespace = namespace
        self._clock = clock
        self._emptied = emptied
        self._own: OrderedDict[Key, str] = OrderedDict()
        # When what was deleted was deleted, in milliseconds of the calendar, as announcements have it.
        self._buried: OrderedDict[Key, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self.replica)

    def contents(self, newest: int) -> Iterator[Addition]:
        """As ``Replica``."""
        return self.replica.contents(newest)

    def keep(self, ids: Iterable[str]) -> None:
        """The own cache keeps entries of these ids."""
        for one in ids:
            self._own[key_of(one)] = one
            # What has gone from there is forgotten here as fast as new ones come.
            for key, oldest in list(islice(self._own.items(), 2)):
                if self._cache.kept(self._namespace, [oldest]):
                    self._own.move_to_end(key)
                else:
                    del self._own[key]

    def bury(self, key: Key, wall_s: float) -> None:
        """What was stored under ``key`` before that time is gone, also where it is only heard of later: two instances
        write to the stream in any order."""
        self._buried[key] = max(_ms(wall_s), self._buried.pop(key, 0))
        if len(self._buried) > self.replica.capacity:
            self._buried.popitem(last=False)

    def fold(self, added: Sequence[Addition], removed: Mapping[Key, float]) -> int:
        """As ``Replica``. An addition without a note of ours is refused."""
        # Not later than now: who has a calendar that is years ahead must not empty the namespace for as long.
        now_s = self._clock.wall()
        until_s = min(emptied_by(removed), now_s)
        if until_s > self.emptied_s:
            self.emptied_s = until_s
            self._emptied()
        for key, wall_s in removed.items():
            self._remove(key, min(wall_s, now_s))
        fresh: list[Addition] = []
        outdated: list[str] = []
        refused = 0
        for one in added:
            note = read_note(one.note)
            if note is None or note.key() != one.key:
                refused += 1
            elif note.stored_s > self.emptied_s and _ms(note.stored_s) >= self._buried.get(one.key, 0):
                fresh.append(one)
                if self._is_outdated(note):
                    outdated.append(note.id)
        if outdated:
            self._cache.delete(self._namespace, outdated)
        return refused + self.replica.fold(fresh, [])

    async def purge(self, forget: Callable[[list[Key]], object]) -> set[str]:
        """Have ``forget`` let go of what was stored by ``emptied_s``, and let go of what the own cache has of it, bit
        by bit. The ids of all that went from the replica."""
        until_s, ids = self.emptied_s, set[str]()
        for keys in sliced(list(self.replica.keys)):
            notes = {key: note for key in keys if (note := read_note(self.replica.note(key))) is not None}
            old = [key for key, note in notes.items() if note.stored_s <= until_s]
            ids |= {notes[key].id for key in old}
            forget(old)
            await asyncio.sleep(0)
        for entries in sliced(self._cache.kept(self._namespace)):
            # As it is now: it may have been replaced.
            now = self._cache.kept(self._namespace, [entry.id for entry in entries])
            self._cache.delete(self._namespace, [entry.id for entry in now if self._stored_s(entry) <= until_s])
            await asyncio.sleep(0)
        return ids

    def _remove(self, key: Key, wall_s: float) -> None:
        """What was stored by then, here and in the own cache."""
        self.bury(key, wall_s)
        note = read_note(self.replica.note(key))
        if note is None or _ms(note.stored_s) <= _ms(wall_s):
            self.replica.remove([key])
        entry_id = self._own.get(key) if note is None else note.id
        kept = [] if entry_id is None else self._cache.kept(self._namespace, [entry_id])
        if kept and _ms(self._stored_s(kept[0])) <= _ms(wall_s):
            self._cache.delete(self._namespace, [kept[0].id])

    def _is_outdated(self, note: Note) -> bool:
        """Whether the own cache has this id with something else, from before."""
        return any(
            self._stored_s(entry) < note.stored_s and Value(entry.payload, entry.text).digest() != note.digest
            for entry in self._cache.kept(self._namespace, [note.id])
        )

    def _stored_s(self, entry: Entry) -> float:
        """By the calendar."""
        return entry.stored_s + self._clock.wall() - self._clock.now()


def _ms(wall_s: float) -> int:
    return int(wall_s * 1000)


def sliced(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """All of them, as many at once as take no more than a millisecond."""
    return (items[start : start + _SLICE] for start in range(0, len(items), _SLICE))
