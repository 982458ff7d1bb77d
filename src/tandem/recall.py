"""An engine's caches: each request is an errand through them (``errand.py``)."""

from __future__ import annotations

from tandem.caching.report import CacheReport
from tandem.errand import Answer, Errand, Means
from tandem.types import EmbedRequest, Source


class Recall(Means):
    """One engine's way through its caches."""

    def begin(self, request: EmbedRequest) -> Answer | Errand:
        """The answer where memory has all of it: then there is nothing to admit the request to. Otherwise a request
        with what memory has. Of very many token ids memory is not asked here, as they would hold up the event loop.
        Raises RequestError."""
        begun_s = self.now()
        encoded = None
        if isinstance(request.inputs[0], str):
            keys = self.text_keys(request)
        elif (encoded := self.intake.encode_now(request)) is not None:
            keys = self.keys.tokens(request.tenant, encoded.ids, encoded.skips)
        else:
            return Errand(self, request)
        found = self.cache.now(keys)
        if None in found:
            errand = Errand(self, request)
            errand.start(keys, found, encoded)
            return errand
        answer = Answer(found, [Source.L1] * len(found))
        self.cache.tally.seconds[Source.L1].append(self.now() - begun_s)
        self.count(answer)
        return answer

    def report(self) -> CacheReport:
        """How the caches stand."""
        cache, store = self.cache, self.cache.store
        tiers = cache.tally.report()
        missed = tiers[Source.MISS.value]
        return CacheReport(
            tiers=tiers,
            text_hit_rate=1 - missed.text_share if cache.tally.total_texts else 0.0,
            token_hit_rate=1 - missed.token_share if cache.tally.total_texts else 0.0,
            memory=cache.l1.statistics(),
            aliases=len(cache.aliases),
            flights=len(self.flights),
            joined=self.flights.joined,
            second_level=None if store is None else store.statistics(),
            second_level_name=None if store is None else store.name,
            state="ok" if store is None else store.state(),
            near=None if self.near is None else self.near.tier.statistics(),
            near_state=None if self.near is None else self.near.tier.state(),
        )

    async def clear(self) -> None:
        """Forget every row of this model, also where other servers share them. Raises as ``ExactCache.clear``."""
        if self.near is not None:
            self.near.tier.clear()
        await self.cache.clear()

    async def close(self) -> None:
        """Let what is being written end. Idempotent."""
        await self.cache.close()
