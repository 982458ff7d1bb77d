"""The semantic cache: what was stored behind a vector is found by vectors near it.

Everything here is plain and synchronous, and belongs to one thread: the event loop's. A look-up costs a search of the
index and little else. What takes long is not done here: flushing a disk and copying a journal are in ``journal.py``
and run elsewhere, and what an emptied namespace held is let go of bit by bit, by ``sweep``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

import numpy as np

from tandem.clock import Clock
from tandem.errors import InvalidInput
from tandem.semantic import checks
from tandem.semantic.base import (
    Item,
    Lookup,
    Namespace,
    NamespaceStatistics,
    SemanticOptions,
    SemanticStatistics,
    Vector,
)
from tandem.semantic.directory import Directory
from tandem.semantic.records import Deleted, Labelled, NoRecorder, Record, Recorder, Stored
from tandem.semantic.restore import restore
from tandem.semantic.shelves import Shelves
from tandem.semantic.signals import read, signals
from tandem.semantic.space import Entry, Found, Space, cost, hit
from tandem.vectors.base import Index
from tandem.verification import Promise


class SemanticCache:
    """Entries of any number of tenants, under one budget of bytes."""

    def __init__(
        self,
        options: SemanticOptions,
        make_index: Callable[[int], Index],
        clock: Clock,
        recorder: Recorder | None = None,
    ) -> None:
        """``make_index`` gives an empty index for vectors of so many dimensions."""
        self._options = options
        self._clock = clock
        self._recorder: Recorder = recorder or NoRecorder()
        # By chance as well: caches that are shared may begin in the same millisecond, and their ids must differ.
        self._epoch = f"{int(clock.wall() * 1000):x}-{secrets.token_hex(4)}"
        self._shelves = Shelves(options, make_index, self._epoch)
        self.directory = Directory(options, self._shelves, clock)
        self._serial = 0
        self._stored = self._lookups = self._lookup_hits = 0
        self._audited = self._audited_wrong = self._alarms = 0

    def store(self, namespace: Namespace, item: Item) -> str:
        """Keep ``item``; returns its id. An id that is there is replaced.

        Raises InvalidInput for what makes no sense, PayloadTooLarge for what is over a limit or over the whole budget.
        """
        now = self._clock.now()
        space = self.directory.storable(namespace, item)
        vector = checks.vector(item.vector, space.index.dims if space else None, self._options)
        ttl_s = self._options.default_ttl_s if item.ttl_s is None else item.ttl_s
        self._serial += 1
        entry = Entry(
            serial=self._serial,
            id=item.id if item.id is not None else f"{self._epoch}-{self._serial}",
            payload=item.payload,
            text=item.text,
            stored_s=now,
            expires_s=np.inf if ttl_s is None else now + ttl_s,
        )
        checks.fits(cost(entry, len(vector)), self._options)
        space = space or self._shelves.open(namespace, len(vector), now)
        self._shelves.admit(space, [entry], vector[None])
        self._stored += 1
        record = Stored.of(namespace, entry, vector, self._clock.wall(), ttl_s)
        self._recorder.append(record, takes_back=item.id is not None)
        return entry.id

    def lookup(self, namespace: Namespace, vector: Vector, threshold: float, k: int = 1) -> Lookup:
        """The ``k`` nearest entries at cosine ``threshold`` or more. Raises InvalidInput."""
        checks.threshold(threshold)
        now = self._clock.now()
        space, unit = self._enter(namespace, vector, k, now)
        if space is None:
            return Lookup([], threshold)
        found = [one for one in space.nearest(unit, k, now) if one[1] >= threshold]
        self._count(space, found)
        return Lookup([hit(one, now) for one in found], threshold)

    def lookup_verified(
        self, namespace: Namespace, vector: Vector, promise: Promise, k: int = 1, text: str | None = None
    ) -> Lookup:
        """Those of the ``k`` nearest entries that are proven to keep ``promise``; see ``Warden``.

        The promise is about the first hit, the one that a caller serves. With ``text``, what was asked, and entries
        that were stored with theirs, more can be served. Raises InvalidInput, PayloadTooLarge.
        """
        checks.text(text, self._options)
        checks.promise(promise)
        now = self._clock.now()
        space, unit = self._enter(namespace, vector, k, now)
        if space is None:
            return Lookup([], None)
        guard = space.verdicts.guard(promise)
        # Before anything is known of the answer, or the labels would be no fair sample.
        audit = guard.audit()
        found = space.nearest(unit, k, now)
        asked = None if text is None else read(text)
        evidence = [signals(asked, None if entry.text is None else read(entry.text), cosine) for entry, cosine in found]
        # Labels are about the nearest. Where that is not good enough, a farther one that looks better is not proven.
        served = [one for one, known in zip(found, evidence, strict=True) if guard.serves(known)]
        served = served if served[:1] == found[:1] else []
        self._count(space, served)
        hits = [hit(one, now) for one in served]
        if not audit or not found:
            return Lookup(hits, guard.threshold())
        lookup_id = space.verdicts.ask(promise, evidence[0], bool(served))
        return Lookup(hits, guard.threshold(), lookup_id, True, None if hits else hit(found[0], now))

    def feedback(self, namespace: Namespace, about: str, right: bool) -> bool:
        """Whether an answer was right. ``about`` is the id of an audited look-up, or of an entry.

        True when a promise learned from it. Raises InvalidInput for an id that is neither.
        """
        space = self._shelves.find(namespace, self._clock.now())
        label = space.verdicts.answer(about, right) if space else None
        if label is not None:
            self._audited += 1
            self._audited_wrong += not label.right
            self._alarms += label.rang
            self._recorder.append(Labelled(namespace, label), takes_back=label.rang)
            return True
        if space is None or space.by_id(about) is None:
            raise InvalidInput(
                f"{namespace} has no audit of this id that waits for feedback, each is answered once, and no entry",
                param="id",
            )
        space.verdicts.volunteer(right)
        return False

    def delete(self, namespace: Namespace, ids: list[str] | None = None) -> int:
        """Forget entries of these ids, or the whole namespace with all that it learned. How many entries went.

        When this returns nobody finds them, and the end of the process does not bring them back. The loss of power
        may, until the recorder has settled: that takes as long as a disk does, and is ``SemanticService.settle``.
        Raises InvalidInput for what can be no namespace.
        """
        checks.namespace(namespace)
        space = self._shelves.find(namespace, self._clock.now())
        if space is None:
            return 0
        if ids is None:
            gone = self._shelves.close(space)
            self._recorder.append(Deleted(namespace, None), takes_back=True)
        else:
            entries = [entry for one in dict.fromkeys(ids) if (entry := space.by_id(one)) is not None]
            gone = len(entries)
            if not entries:
                return 0
            self._shelves.drop(space, entries)
            self._recorder.append(Deleted(namespace, [entry.id for entry in entries]), takes_back=True)
        return gone

    def kept(self, namespace: Namespace, ids: Iterable[str] | None = None) -> list[Entry]:
        """Entries of these ids, those that are there, or all of the namespace; to be read, not to be changed."""
        space = self._shelves.find(namespace, self._clock.now())
        if space is None:
            return []
        if ids is None:
            return list(space)
        return [entry for one in dict.fromkeys(ids) if (entry := space.by_id(one)) is not None]

    def restore(self, records: Callable[[], Iterable[Record]]) -> None:
        """Take up what an earlier process wrote; ``records`` is gone through twice. For a cache that is new."""
        self._serial = restore(records, self._shelves, self._clock)

    def close(self) -> None:
        """Forget everything that is in memory; what is on disk stays."""
        for space in list(self._shelves):
            self._shelves.close(space)

    def sweep(self) -> bool:
        """Clear away some of what has expired, in every namespace, and some of what emptied ones held; whether there
        is more of the latter. For now and then; look-ups do not need it."""
        return self._shelves.sweep(self._clock.now())

    def serials(self) -> set[int]:
        """Of all entries that are there: what a journal must keep."""
        return set[int]().union(*(space.serials() for space in self._shelves))

    def statistics(self) -> SemanticStatistics:
        spaces = list(self._shelves)
        return SemanticStatistics(
            namespaces=len(spaces),
            former_namespaces=sum(space.is_former for space in spaces),
            entries=len(self._shelves),
            bytes=self._shelves.ages.bytes,
            former_bytes=self._shelves.ages.former_bytes,
            index_bytes=sum(space.index.memory_bytes() for space in spaces),
            lookups=self._lookups,
            lookup_hits=self._lookup_hits,
            stored=self._stored,
            evicted=self._shelves.evicted,
            expired=self._shelves.expired,
            audited=self._audited,
            audited_wrong=self._audited_wrong,
            alarms=self._alarms,
        )

    def namespaces(self, tenant: str) -> dict[Namespace, NamespaceStatistics]:
        """Those of one tenant."""
        return {one.namespace: one.statistics() for one in self._shelves if one.namespace.tenant == tenant}

    def _enter(self, namespace: Namespace, vector: Vector, k: int, now: float) -> tuple[Space | None, Vector]:
        checks.namespace(namespace)
        checks.k(k, self._options)
        space = self._shelves.find(namespace, now)
        self._lookups += 1
        return space, checks.vector(vector, space.index.dims if space else None, self._options)

    def _count(self, space: Space, served: list[Found]) -> None:
        space.count(bool(served))
        self._lookup_hits += bool(served)
        for entry, _ in served:
            entry.asked = True
