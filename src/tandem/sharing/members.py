"""Which namespaces an instance shares: where it takes part, since when, and until when."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from math import inf
from typing import TypeAlias

import msgspec

from tandem.caching.federated_outbox import end, ended
from tandem.caching.federated_wire import START
from tandem.clock import Clock
from tandem.semantic.base import Namespace
from tandem.semantic.cache import SemanticCache
from tandem.sharing.copies import GAUGES, SINGLE, Meeting, Member, SharingOptions, scope_for

# Questions about namespaces that may be under way at once, and places that are remembered as asked about.
_ASKING, _ASKED = 16, 4096

Place: TypeAlias = tuple[Namespace, int]
"""A namespace and the length of its vectors: one that was emptied may come back with another."""


class FederationReport(msgspec.Struct, frozen=True):
    """``state``: ``ok``, or in words what is wrong. ``counters``: sums over all namespaces; ``entries``, ``waiting``
    and ``unshared`` over the ``namespaces`` that are shared now. ``peers``: other instances that announced something in
    one of them within the last ten minutes. ``behind_s``: since when there may be news that was not read, where it is
    longest; about a second as a rule.
    """

    state: str
    namespaces: int
    counters: dict[str, float]
    peers: int = 0
    behind_s: float = 0.0


class Members:
    """An instance's parts in shared namespaces. Of one event loop."""

    def __init__(self, meeting: Meeting, cache: SemanticCache, clock: Clock, options: SharingOptions) -> None:
        """``cache``: the instance's own."""
        self.counters: Counter[str] = Counter()
        self._meeting = meeting
        self._cache = cache
        self._clock = clock
        self._options = options
        # In order of use.
        self._members: OrderedDict[Place, Member] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        # When it was last asked whether anybody uses a place.
        self._asked: OrderedDict[Place, float] = OrderedDict()
        self._asking: set[asyncio.Task[None]] = set()

    def get(self, place: Place) -> Member | None:
        """The part in a namespace, if there is one."""
        member = self._members.get(place)
        if member is not None:
            self._members.move_to_end(place)
        return member

    def join(self, place: Place) -> Member | None:
        """Have a part in a namespace from now on, if there is none; None while too many are being given up: they hold
        queues and connections until Redis has answered, and a caller goes through names faster than that."""
        member = self.get(place)
        if member is not None:
            return member
        if len(self._closing) >= self._options.closing:
            return None
        if len(self._members) >= self._options.namespaces:
            self._part()
        member = self._members[place] = Member(self._meeting, *place, self._cache, self._clock, self._options)
        member.start()
        self._asked.pop(place, None)
        return member

    async def take(self, place: Place) -> Member:
        """As ``join``, and wait for it: for what must be told."""
        while (member := self.join(place)) is None:
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)
        return member

    def ask(self, place: Place) -> None:
        """Find out whether others use this namespace, and join them if they do; waits for nothing."""
        now = self._clock.now()
        if len(self._asking) >= _ASKING or now - self._asked.get(place, -inf) < self._options.ask_every_s:
            return
        self._asked[place] = now
        self._asked.move_to_end(place)
        if len(self._asked) > _ASKED:
            self._asked.popitem(last=False)
        asking = asyncio.get_running_loop().create_task(self._find(place), name="asking for a namespace")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        asking.add_done_callback(ended)

    def of(self, namespace: Namespace) -> list[Member]:
        """Those of one namespace, whatever the length of its vectors."""
        return [member for (name, _), member in self._members.items() if name == namespace]

    def report(self, counters: Counter[str]) -> FederationReport:
        """How sharing stands; ``counters`` are added."""
        sums = Counter({name: float(count) for name, count in (self.counters + counters).items()})
        found = [member.statistics() for member in self._members.values()]
        for counts in found:
            sums.update({name: count for name, count in counts.items() if name not in SINGLE})
        peers = int(max((counts["peers"] for counts in found), default=0))
        behind_s = max((counts["behind_s"] for counts in found), default=0.0)
        states = [member.state() for member in self._members.values()]
        state = next((state for state in states if state != "ok"), "ok") if states else "no namespace is shared yet"
        return FederationReport(state, len(self._members), dict(sums), peers, behind_s)

    async def close(self) -> None:
        """Share what waits if that is quick. Idempotent."""
        await end(list(self._asking))
        members, self._members = list(self._members.values()), OrderedDict()
        await asyncio.gather(*(member.close() for member in members), *self._closing)
        await self._meeting.close()

    async def _find(self, place: Place) -> None:
        try:
            view = await self._meeting.board(scope_for(*place)).view(START)
        except OSError:
            self.counters["unanswered"] += 1
            return
        if view.last > START:
            self.join(place)

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
        closing.add_done_callback(ended)
