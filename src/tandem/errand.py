"""A request through the caches: what was computed before is not computed again, nor is what is being computed.

For each text in turn: memory, by its text key, without a tokenizer; the flight of another request for the same text;
the second level; its tokens, and memory and flights by their key; the model. A list waits only for what it lacks, and a
text of it that another caller waits for is his as soon as its own batch has ended.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.caching.base import Entry, Key
from tandem.caching.exact import ExactCache
from tandem.caching.keys import Context, KeyMaker
from tandem.caching.near_duplicate import Look, Query
from tandem.caching.single_flight import Flight, SingleFlight
from tandem.errors import RequestError
from tandem.intake import Intake
from tandem.models.tokenizer import Encoded
from tandem.models.tokenizer_checks import check_strings
from tandem.near import NearDuplicates
from tandem.scheduling.base import Item, group_of
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import CacheMode, EmbedRequest, Source, Tier

Check = Callable[[EmbedRequest], None]


class Answer:
    """What a request has so far, a place for each of its texts; and where its time went, summed over the ``computed``
    ones."""

    __slots__ = ("computed", "entries", "infer_s", "queue_s", "similarity", "sources", "tokenize_s")

    def __init__(self, entries: list[Entry | None], sources: list[Source]) -> None:
        self.entries = entries
        self.sources = sources
        self.tokenize_s = self.queue_s = self.infer_s = 0.0
        self.computed = 0
        self.similarity: float | None = None

    def rows(self) -> list[NDArray[np.float32]]:
        """All rows, once all are there."""
        return [entry.row for entry in self.entries if entry is not None]

    def token_counts(self) -> list[int]:
        return [entry.tokens for entry in self.entries if entry is not None]


class Means:
    """What all errands of an engine share. Of one event loop."""

    def __init__(self, cache: ExactCache, keys: KeyMaker, intake: Intake, loop: SchedulerLoop, tier: Tier) -> None:
        self.cache = cache
        self.now = cache.tally.now
        self.flights = SingleFlight()
        self.keys = keys
        self.intake = intake
        self.loop = loop
        self.tier = tier
        self.near: NearDuplicates | None = None
        """Near-duplicates, where they are asked for."""

    def context(self, request: EmbedRequest) -> Context:
        """Raises InvalidInput for a prompt that the model does not have."""
        prompt, truncate = self.intake.terms(request)
        return Context(request.tenant, prompt, truncate, request.truncation_direction)

    def text_keys(self, request: EmbedRequest) -> list[Key]:
        """Raises InvalidInput for what is no text."""
        texts = cast("Sequence[str]", request.inputs)
        check_strings(texts)
        return self.keys.texts(self.context(request), texts)

    def count(self, answer: Answer) -> None:
        for source, entry in zip(answer.sources, answer.entries, strict=True):
            if entry is not None:
                self.cache.tally.count(source, entry.tokens)


class Errand:
    """One request on its way. ``_encoded``: its inputs as tokens, where those came first."""

    def __init__(self, means: Means, request: EmbedRequest) -> None:
        n = len(request.inputs)
        self.answer = Answer([None] * n, [Source.MISS] * n)
        self.is_text = isinstance(request.inputs[0], str)
        self._means = means
        self._request = request
        self._begun_s = means.now()
        self._encoded: Encoded | None = None
        self._places: dict[Key, list[int]] = {}
        self._sources: dict[Key, Source] = {}
        # Rows that are near enough are this request's alone: whoever joined its flight did not ask for such.
        self._near: dict[Key, Entry] = {}

    def start(self, keys: Sequence[Key], found: Sequence[Entry | None], encoded: Encoded | None = None) -> None:
        """Take what memory has ``found``; ``keys``: one for each place. Ids have no key but that of all their
        tokens."""
        self._encoded = encoded
        answer = self.answer
        for place, (key, entry) in enumerate(zip(keys, found, strict=True)):
            if entry is None:
                self._places.setdefault(key, []).append(place)
            else:
                answer.entries[place], answer.sources[place] = entry, Source.L1

    async def run(self, check: Check) -> Answer:
        """The rest, from wherever it is. ``check`` may refuse what has to be computed. Raises what the scheduler, the
        tokenizer and ``check`` raise."""
        means, request = self._means, self._request
        if not self.is_text and self._encoded is None:
            encoded = await means.intake.encode(request)
            keys = means.keys.tokens(request.tenant, encoded.ids, encoded.skips)
            self.start(keys, means.cache.now(keys), encoded)
        places = self._places
        while places:
            places = await self._once(places, check)
        means.count(self.answer)
        return self.answer

    async def _once(self, places: dict[Key, list[int]], check: Check) -> dict[Key, list[int]]:
        """Compute what nobody does, and wait for what others do. What they have given up is returned."""
        flights = self._means.flights
        others = {key: flight for key in places if (flight := flights.find(key)) is not None}
        for flight in others.values():
            self._join(flight)
        mine = {key: flights.begin(key) for key in places if key not in others}
        try:
            if mine:
                await self._compute(mine, places, check)
        finally:
            # What has landed stays so. The rest nobody computes any more: whoever waits for it begins anew.
            for flight in mine.values():
                flights.land(flight, None)
        left: dict[Key, list[int]] = {}
        for key, where in places.items():
            entry = self._near.get(key) or await (others.get(key) or mine[key]).wait()
            if entry is None:
                left[key] = where
            for place in where if entry is not None else ():
                self.answer.entries[place] = entry
                self.answer.sources[place] = self._sources.get(key, Source.MISS)
        return left

    def _join(self, flight: Flight) -> None:
        self._means.flights.joined += 1
        hasten = partial(self._hasten, flight, self._due_s())
        if flight.what is None:
            flight.on_queue.append(hasten)
        else:
            hasten()

    def _hasten(self, flight: Flight, due_s: float | None) -> None:
        """Who joins a flight may be in more of a hurry than who began it."""
        if isinstance(flight.what, Item):
            self._means.loop.hasten(flight.what, self._request.priority, due_s)

    async def _compute(self, mine: dict[Key, Flight], places: dict[Key, list[int]], check: Check) -> None:
        """Land these flights, from the second level or by the model. Some may be left: those that waited for another
        request's, which was given up."""
        means, request = self._means, self._request
        keys = list(mine)
        for key, entry in zip(keys, await means.cache.later(keys, request.tenant), strict=True):
            if entry is not None:
                self._land(mine[key], entry, Source.L2)
        keys = [key for key in keys if not mine[key].landed.done()]
        if not keys:
            return
        begun_s = means.now()
        encoded = await self._encode([places[key][0] for key in keys])
        self.answer.tokenize_s += means.now() - begun_s
        # Again: many requests may have come in while the queue was empty, and tokenized since.
        check(request)
        waits: list[tuple[Flight, Flight]] = []
        chosen: list[int] = []
        for index, token_key in enumerate(means.keys.tokens(request.tenant, encoded.ids, encoded.skips)):
            other = self._by_tokens(mine[keys[index]], token_key)
            if other is not None:
                waits.append((mine[keys[index]], other))
            elif not mine[keys[index]].landed.done():
                chosen.append(index)
        looks = self._look_near([places[keys[index]][0] for index in chosen], pick(encoded, chosen))
        if self._request.cache is CacheMode.NEAR:
            looks, chosen = self._serve_near(looks, chosen, keys, mine)
        if chosen:
            await self._forward(pick(encoded, chosen), [mine[keys[index]] for index in chosen], looks)
        for flight, other in waits:
            entry = await other.wait()
            if entry is not None:
                means.cache.aliases.put(flight.keys[0], other.keys[0])
                means.flights.land(flight, entry)

    def _by_tokens(self, flight: Flight, token_key: Key) -> Flight | None:
        """Look for the row by its tokens: it lands the flight, or there is another flight, or this one is the first."""
        means, key = self._means, flight.keys[0]
        if token_key == key:
            return None
        entry = means.cache.one(token_key)
        if entry is not None:
            means.cache.aliases.put(key, means.cache.aliases.get(token_key) or token_key)
            self._land(flight, entry, Source.L1)
            return None
        other = means.flights.find(token_key)
        if other is None:
            means.flights.also(flight, token_key)
        else:
            self._join(other)
        return other

    def _look_near(self, where: list[int], encoded: Encoded) -> list[tuple[Query, Look]]:
        """Near-duplicates of the texts at these places; none where the tier is off."""
        means, request = self._means, self._request
        if means.near is None:
            return []
        texts = [cast("str", request.inputs[place]) if self.is_text else None for place in where]
        return means.near.look_up(means.context(request), texts, encoded.ids, wanted=request.cache is CacheMode.NEAR)

    def _serve_near(
        self, looks: list[tuple[Query, Look]], chosen: list[int], keys: list[Key], mine: dict[Key, Flight]
    ) -> tuple[list[tuple[Query, Look]], list[int]]:
        """Answer what may be answered; what is left to compute is returned."""
        left_looks, left = [], []
        for (query, look), index in zip(looks, chosen, strict=False):
            found = self._means.near.served(look) if self._means.near else None
            if found is None:
                left_looks.append((query, look))
                left.append(index)
                continue
            entry, similarity = found
            # Its own length counts, not the anchor's.
            self._near[keys[index]] = Entry(entry.row, len(query.ids), entry.tier)
            self._sources[keys[index]] = Source.NEAR
            # Given up at once: whoever joined it, a double in this very list too, waits for the model's own row.
            self._means.flights.land(mine[keys[index]], None)
            known = self.answer.similarity
            self.answer.similarity = similarity if known is None else min(known, similarity)
        return (left_looks, left) if looks else (looks, chosen)

    async def _forward(self, encoded: Encoded, flights: list[Flight], looks: list[tuple[Query, Look]]) -> None:
        means, answer = self._means, self.answer

        def arrived(index: int, row: NDArray[np.float32]) -> None:
            flight = flights[index]
            entry = Entry(row, len(encoded.ids[index]), means.tier)
            means.cache.keep(flight.keys[0], entry, self._request.tenant)
            for key in flight.keys[1:]:
                means.cache.aliases.put(key, flight.keys[0])
            means.flights.land(flight, entry)
            if means.near is not None and looks:
                means.near.learn(*looks[index], flight.keys[0], row)

        group, items = group_of(self._request, encoded.ids, encoded.skips, self._due_s())
        group.arrived = arrived
        for flight, item in zip(flights, items, strict=True):
            flight.what = item
            for joined in flight.on_queue:
                # Before the first batch is cut, which is when this turn of the event loop is over.
                get_running_loop().call_soon(joined)
        await means.loop.run(group, items)
        answer.queue_s += group.queue_s
        answer.infer_s += group.infer_s
        answer.computed += len(items)

    def _land(self, flight: Flight, entry: Entry, source: Source) -> None:
        self._sources[flight.keys[0]] = source
        self._means.flights.land(flight, entry)

    async def _encode(self, chosen: list[int]) -> Encoded:
        if self._encoded is not None:
            return pick(self._encoded, chosen)
        inputs = cast("Sequence[str]", self._request.inputs)
        if len(chosen) == len(inputs):
            return await self._means.intake.encode(self._request)
        wanted = msgspec.structs.replace(self._request, inputs=[inputs[place] for place in chosen])
        try:
            return await self._means.intake.encode(wanted)
        except RequestError as error:
            # It counts among those that were not known.
            raise error.shifted(0 if error.index is None else chosen[error.index] - error.index) from None

    def _due_s(self) -> float | None:
        timeout_s = self._request.timeout_s
        return None if timeout_s is None else self._begun_s + timeout_s


def pick(encoded: Encoded, chosen: Sequence[int]) -> Encoded:
    """Some of the texts."""
    skips = encoded.skips
    return Encoded([encoded.ids[i] for i in chosen], None if skips is None else [skips[i] for i in chosen])
