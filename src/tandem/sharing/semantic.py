"""Semantic caches of several instances as one: where ``semantic/`` and ``caching/federated.py`` meet.

An instance keeps what its own callers stored, and a federated copy of what all instances stored: vectors and notes
here, payloads in Redis. A look-up asks the own cache first, and the copy where that has no hit at all.

What was deleted or replaced somewhere must not be served from the cache of an instance that has its own of it. So news
is not only folded into the copy: it also takes entries out of the own cache. Of two entries of one id the later one
counts, and an emptied namespace loses what was stored before, by the calendars of the instances; theirs should agree to
within a second or so.

A namespace is shared from when something is stored in it here, deleted from it, or known to be stored by others: to
look up in names that nobody uses costs one question to Redis each second, and no membership.

Rejected: to keep everything in the federation alone (a verified look-up learns from entries that it can name, and a
Redis that is away would make every look-up a miss); to take what the copy found into the own cache (it would be kept
twice, and be deleted twice).
"""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import numpy as np

from tandem.clock import Clock
from tandem.semantic.base import Hit, Item, Lookup, Namespace, Vector
from tandem.semantic.service import SemanticService
from tandem.sharing.copies import Meeting, Member, SharingOptions
from tandem.sharing.members import FederationReport, Members
from tandem.sharing.notes import Note, Value, read_note, read_value, sliced

__all__ = ["FederationReport", "SharedSemantic"]


class SharedSemantic:
    """The semantic cache as routes use it. Without a ``meeting`` it is the instance's own and nothing else.

    Of one event loop. Whatever happens to Redis or to another instance, nothing here fails for it: it costs misses.
    A verified look-up stays with ``cache``, the instance's own: a promise is learned from its feedback, about its
    entries.
    """

    def __init__(
        self,
        service: SemanticService,
        clock: Clock,
        meeting: Meeting | None = None,
        options: SharingOptions | None = None,
    ) -> None:
        self.cache = service.cache
        self.counters: Counter[str] = Counter()
        self._service = service
        self._clock = clock
        self._options = options or SharingOptions()
        self.members = None if meeting is None else Members(meeting, service.cache, clock, self._options)

    def start(self) -> None:
        """Look after it from now on, and hear at once what became of namespaces that are on its disk."""
        self._service.start()
        if self.members is not None:
            for place in self.cache.directory.places()[: self._options.namespaces]:
                self.members.join(place)

    def store(self, namespace: Namespace, item: Item) -> str:
        """As ``SemanticCache.store``; the others hear of it soon. Waits for nothing."""
        entry_id = self.cache.store(namespace, item)
        if self.members is not None:
            self._share(self.members, namespace, entry_id, item)
        return entry_id

    async def lookup(self, namespace: Namespace, vector: Vector, threshold: float, k: int = 1) -> Lookup:
        """As ``SemanticCache.lookup``. Where that finds nothing, at most one entry that another instance stored; its
        payload is waited for as long as ``ValuesOptions`` says, 0.05 s.

        The first look-ups in a namespace find only what is here: whether others have more is asked meanwhile, and a
        copy of it fetched. Raises InvalidInput.
        """
        found = self.cache.lookup(namespace, vector, threshold, k)
        if found.hits or self.members is None:
            return found
        place = (namespace, len(vector))
        is_used = self.cache.directory.dims(namespace) is not None
        member = self.members.join(place) if is_used else self.members.get(place)
        if member is not None:
            return Lookup(await self._elsewhere(member, vector, threshold), threshold)
        self.members.ask(place)
        return found

    async def delete(self, namespace: Namespace, ids: list[str] | None = None, dims: int | None = None) -> int:
        """As ``SemanticCache.delete``, here at once and on the others soon: on those that run and hear of it within
        what the stream remembers. How many entries went that this instance knew of.

        ``dims``: of the namespace's vectors, where the caller knows. Without, a namespace that nobody has used here
        is only deleted here. What other instances have learned stays. Returns when not even the loss of power brings
        back what was here; raises ServiceError where the disk does not confirm that.
        """
        dims = self.cache.directory.dims(namespace) or dims
        known: set[str] = set()
        for some in [None] if ids is None else sliced(list(dict.fromkeys(ids))):
            known |= await self._delete(namespace, None if some is None else list(some), dims)
        await self._service.settle()
        return len(known)

    def state(self) -> str:
        """Of the own cache: ``ok``, or in words what is wrong."""
        return self._service.state()

    def federation(self) -> FederationReport | None:
        """How sharing stands; None when nothing is shared."""
        return None if self.members is None else self.members.report(self.counters)

    async def close(self) -> None:
        """Share what waits if that is quick, and settle what was written. Idempotent."""
        if self.members is not None:
            await self.members.close()
        await self._service.close()

    async def _delete(self, namespace: Namespace, ids: list[str] | None, dims: int | None) -> set[str]:
        entries = self.cache.kept(namespace, ids)
        self.cache.delete(namespace, ids)
        known: set[str] = set()
        for some in sliced(entries):
            known |= {entry.id for entry in some}
            await asyncio.sleep(0)
        if self.members is None:
            return known
        if dims is not None:
            await self.members.take((namespace, dims))
        for member in self.members.of(namespace):
            known |= await member.forget(ids)
        return known

    def _share(self, members: Members, namespace: Namespace, entry_id: str, item: Item) -> None:
        """Tell the others of an entry that was stored just now."""
        kept = self.cache.kept(namespace, [entry_id])
        if not kept:  # There was no room for it.
            return
        (entry,) = kept
        now, wall_s = self._clock.now(), self._clock.wall()
        value = Value(entry.payload, entry.text)
        expires_s = None if entry.expires_s == np.inf else wall_s + entry.expires_s - now
        note = Note(entry_id, wall_s, expires_s, value.digest())
        member = members.join((namespace, len(item.vector)))
        if member is None:
            self.counters["left_out"] += 1
            return
        member.replace(entry_id, wall_s)
        data = msgspec.msgpack.encode(value)
        if len(data) > self._options.value_bytes:
            self.counters["too_long"] += 1
        elif member.unshared() >= self._options.unshared:
            self.counters["left_out"] += 1
        else:
            member.share(note, _unit(item.vector), data)

    async def _elsewhere(self, member: Member, vector: Vector, threshold: float) -> list[Hit]:
        unit = _unit(vector)
        # One that has expired, or was there when all was deleted, goes, and the next nearest is asked for. Where
        # hundreds have, it is a miss.
        for _ in range(8):
            found = await member.cache.lookup(unit, threshold)
            note = None if found is None else read_note(found.note)
            if found is None or note is None:  # Deleted while its value was on its way.
                return []
            wall_s = self._clock.wall()
            is_over = note.expires_s is not None and note.expires_s <= wall_s
            if is_over or member.is_gone(note):
                self.counters["expired"] += is_over
                member.drop(found.key)
                continue
            value = read_value(found.value)
            if value is None or value.digest() != note.digest:
                # It was replaced, and either the note or the value is the old one still.
                self.counters["mismatched"] += 1
                return []
            return [Hit(note.id, found.cosine, value.payload, max(0.0, wall_s - note.stored_s), value.text)]
        return []


def _unit(vector: Vector) -> Vector:
    """A vector that the own cache took, of length 1; in float64, as its square may be too large for float32."""
    exact = vector.astype(np.float64)
    return (exact / np.linalg.norm(exact)).astype(np.float32)
