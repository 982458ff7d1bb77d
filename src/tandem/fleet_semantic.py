"""Semantic caches of several instances as one: where ``semantic/`` and ``caching/federated.py`` meet.

An instance keeps what its own callers stored, and a federated copy of what all instances stored: vectors and notes
here, payloads in Redis. A look-up asks the own cache first, and the copy where that has no hit at all.

What was deleted or replaced somewhere must not be served from the cache of an instance that has its own of it. So news
is not only folded into the copy: it also takes entries out of the own cache. Of two entries of one id the later one
counts, and an emptied namespace loses what was stored before, by the calendars of the instances; theirs should agree to
within a second or so.

Rejected: to keep everything in the federation alone (a verified look-up learns from entries that it can name, and a
Redis that is away would make every look-up a miss); to take what the copy found into the own cache (it would be kept
twice, and be deleted twice).
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict

import msgspec
import numpy as np

from tandem.clock import Clock
from tandem.fleet_copy import GAUGES, SINGLE, Meeting, Member, Note, SharingOptions, Value, read_note, read_value
from tandem.semantic.base import Hit, Item, Lookup, Namespace, Vector
from tandem.semantic.service import SemanticService


class FederationReport(msgspec.Struct, frozen=True):
    """``state``: ``ok``, or in words what is wrong. ``counters``: sums over all namespaces; ``entries``, ``waiting``
    and ``unshared`` over the ``namespaces`` that are shared now. ``peers``: other instances that announced something in
    one of them within the last ten minutes. ``behind_s``: how old news was when it was last read, where it was oldest.
    """

    state: str
    namespaces: int
    counters: dict[str, float]
    peers: int = 0
    behind_s: float = 0.0


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
        self._meeting = meeting
        self._options = options or SharingOptions()
        # In order of use. A namespace that was emptied may come back with vectors of another length: another scope.
        self._members: OrderedDict[tuple[Namespace, int], Member] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Look after it from now on. Namespaces are shared from when they are first asked for."""
        self._service.start()

    def store(self, namespace: Namespace, item: Item) -> str:
        """As ``SemanticCache.store``; the others hear of it soon. Waits for nothing."""
        entry_id = self.cache.store(namespace, item)
        if self._meeting is not None:
            self._share(namespace, entry_id, item)
        return entry_id

    async def lookup(self, namespace: Namespace, vector: Vector, threshold: float, k: int = 1) -> Lookup:
        """As ``SemanticCache.lookup``. Where that finds nothing, at most one entry that another instance stored; its
        payload is waited for as long as ``ValuesOptions`` says, 0.05 s.

        The first look-ups in a namespace find only what is here: the copy is fetched meanwhile. Raises InvalidInput.
        """
        found = self.cache.lookup(namespace, vector, threshold, k)
        if found.hits or self._meeting is None:
            return found
        return Lookup(await self._elsewhere(self._meeting, namespace, vector, threshold), threshold)

    def delete(self, namespace: Namespace, ids: list[str] | None = None, dims: int | None = None) -> int:
        """As ``SemanticCache.delete``, here at once and on the others soon: on those that run and hear of it within
        what the stream remembers. How many entries went that this instance knew of.

        ``dims``: of the namespace's vectors, where the caller knows. Without, a namespace that nobody has used here
        is only deleted here. What other instances have learned stays.
        """
        known = {entry.id for entry in self.cache.kept(namespace, ids)} if self._meeting else set()
        gone = self.cache.delete(namespace, ids)
        if self._meeting is None:
            return gone
        if dims is not None:
            self._member(self._meeting, namespace, dims)
        for (name, _), member in self._members.items():
            if name == namespace:
                known |= member.forget(ids)
        return len(known)

    def state(self) -> str:
        """Of the own cache: ``ok``, or in words what is wrong."""
        return self._service.state()

    def federation(self) -> FederationReport | None:
        """How sharing stands; None when nothing is shared."""
        if self._meeting is None:
            return None
        sums = Counter({name: float(count) for name, count in self.counters.items()})
        found = [member.statistics() for member in self._members.values()]
        for counts in found:
            sums.update({name: count for name, count in counts.items() if name not in SINGLE})
        peers = int(max((counts["peers"] for counts in found), default=0))
        behind_s = max((counts["behind_s"] for counts in found), default=0.0)
        states = [member.state() for member in self._members.values()]
        state = next((state for state in states if state != "ok"), "ok") if states else "no namespace was used yet"
        return FederationReport(state, len(self._members), dict(sums), peers, behind_s)

    async def close(self) -> None:
        """Share what waits if that is quick, and settle what was written. Idempotent."""
        members, self._members = list(self._members.values()), OrderedDict()
        await asyncio.gather(*(member.close() for member in members), *self._closing)
        if self._meeting is not None:
            await self._meeting.close()
        await self._service.close()

    def _share(self, namespace: Namespace, entry_id: str, item: Item) -> None:
        """Tell the others of an entry that was stored just now."""
        assert self._meeting is not None, "there is nobody to share with"
        kept = self.cache.kept(namespace, [entry_id])
        if not kept:  # There was no room for it.
            return
        (entry,) = kept
        now, wall_s = self._clock.now(), self._clock.wall()
        value = Value(entry.payload, entry.text)
        expires_s = None if entry.expires_s == np.inf else wall_s + entry.expires_s - now
        note = Note(entry_id, wall_s, expires_s, value.digest())
        member = self._member(self._meeting, namespace, len(item.vector))
        member.withdraw(note.key())
        data = msgspec.msgpack.encode(value)
        if len(data) > self._options.value_bytes:
            self.counters["too_long"] += 1
        elif member.unshared() >= self._options.unshared:
            self.counters["left_out"] += 1
        else:
            member.share(note, _unit(item.vector), data)

    async def _elsewhere(self, meeting: Meeting, namespace: Namespace, vector: Vector, threshold: float) -> list[Hit]:
        member = self._member(meeting, namespace, len(vector))
        unit = _unit(vector)
        # One that has expired goes, and the next nearest is asked for. Where hundreds have, it is a miss.
        for _ in range(8):
            found = await member.cache.lookup(unit, threshold)
            note = None if found is None else read_note(found.note)
            if found is None or note is None:  # Deleted while its value was on its way.
                return []
            wall_s = self._clock.wall()
            if note.expires_s is not None and note.expires_s <= wall_s:
                self.counters["expired"] += 1
                member.drop(found.key)
                continue
            value = read_value(found.value)
            if value is None or value.digest() != note.digest:
                # It was replaced, and either the note or the value is the old one still.
                self.counters["mismatched"] += 1
                return []
            return [Hit(note.id, found.cosine, value.payload, max(0.0, wall_s - note.stored_s), value.text)]
        return []

    def _member(self, meeting: Meeting, namespace: Namespace, dims: int) -> Member:
        """This instance's part in a namespace, from now on if it had none."""
        place = (namespace, dims)
        if place not in self._members:
            if len(self._members) >= self._options.namespaces:
                self._part()
            member = Member(meeting, namespace, dims, self.cache, self._clock, self._options)
            member.start()
            self._members[place] = member
        self._members.move_to_end(place)
        return self._members[place]

    def _part(self) -> None:
        """End sharing one namespace: a tenant who goes through names must not cost the others theirs."""
        shares = Counter(namespace.tenant for namespace, _ in self._members)
        most = max(shares.values())
        place = next(place for place in self._members if shares[place[0].tenant] == most)
        member = self._members.pop(place)
        # What was counted stays counted.
        left = member.statistics().items()
        self.counters.update({name: int(count) for name, count in left if name not in GAUGES | SINGLE})
        closing = asyncio.get_running_loop().create_task(member.close())
        self.counters["parted"] += 1
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _unit(vector: Vector) -> Vector:
    """A vector that the own cache took, of length 1; in float64, as its square may be too large for float32."""
    exact = vector.astype(np.float64)
    return (exact / np.linalg.norm(exact)).astype(np.float32)
