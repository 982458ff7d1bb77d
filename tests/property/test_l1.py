"""The L1 cache, whatever is done to it: what it serves is what was put last under that key, and its books agree."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tandem.caching.base import Entry, Key
from tandem.caching.l1 import L1Cache, L1Options, slots_of
from tandem.clock import ManualClock
from tandem.quantization import ROW_CODECS
from tandem.types import Tier

DIMS = 4
# Few first words, so that searches in the index run into each other.
KEYS = [low.to_bytes(8, "little") + high.to_bytes(8, "little") for low in (0, 1, 2, 47) for high in range(12)]
keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=8)
TTL_S = 10.0


class CacheMachine(RuleBasedStateMachine):
    @initialize(
        budget=st.integers(34_000, 40_000),
        codec=st.sampled_from(list(ROW_CODECS)),
        ttl_s=st.sampled_from([0.0, TTL_S]),
        share=st.sampled_from([0.3, 1.0]),
    )
    def begin(self, budget: int, codec: str, ttl_s: float, share: float) -> None:
        self.clock = ManualClock()
        options = L1Options(budget_bytes=budget, codec=codec, ttl_s=ttl_s, tenant_share=share)
        self.cache = L1Cache(options, DIMS, self.clock)
        assert self.cache.slots == slots_of(options, DIMS)
        self.put_last: dict[Key, tuple[int, float]] = {}
        self.kept: list[tuple[int, Entry]] = []
        self.number = 0

    def judge(self, key: Key, found: Entry | None) -> None:
        if found is None:
            return
        number, born_s = self.put_last[key]
        assert found.tokens == number
        np.testing.assert_allclose(found.row, number, rtol=1e-6)
        assert not self.cache.options.ttl_s or self.clock.now() - born_s < TTL_S
        self.kept.append((number, found))

    @rule(asked=keys, tenant=st.sampled_from(["", "a", "b", "c"]))
    def put(self, asked: list[Key], tenant: str) -> None:
        entries = []
        for key in asked:
            self.number += 1
            entries.append(Entry(np.full(DIMS, self.number, np.float32), self.number, Tier.FP32))
            self.put_last[key] = self.number, self.clock.now()
        self.cache.put(asked, entries, f"{tenant}")

    @rule(asked=keys)
    def get(self, asked: list[Key]) -> None:
        for key, found in zip(asked, self.cache.get_many(asked), strict=True):
            self.judge(key, found)
        self.judge(asked[0], self.cache.get(asked[0]))
        counts = self.cache.statistics()
        self.judge(asked[0], self.cache.borrow(asked[0]))
        assert self.cache.statistics() == counts

    @rule(asked=keys)
    def remove(self, asked: list[Key]) -> None:
        before = len(self.cache)
        assert self.cache.remove(asked) == before - len(self.cache)
        assert self.cache.get_many(asked) == [None] * len(asked)

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        assert len(self.cache) == 0

    @invariant()
    def the_books_agree(self) -> None:
        if hasattr(self, "cache"):
            self.cache.check()
            stats = self.cache.statistics()
            assert stats["entries"] <= stats["slots"]

    @invariant()
    def what_was_got_stays(self) -> None:
        for number, entry in getattr(self, "kept", []):
            np.testing.assert_allclose(entry.row, number, rtol=1e-6)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
