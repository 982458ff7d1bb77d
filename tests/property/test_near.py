"""Near duplicates: guards are fair to both sides, what is served was computed, and no row that was served is kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tandem.caching.guards import Strictness, read, refusal
from tandem.caching.near_duplicate import NearDuplicateTier, NearOptions, Query
from tandem.caching.signatures import GivenSigner, MinHashSigner
from tandem.verification import GuardOptions, LearnerOptions, Promise

DIMS = 4
some_words = st.lists(
    st.sampled_from(
        [
            "how",
            "do",
            "i",
            "not",
            "open",
            "close",
            "the",
            "my",
            "card",
            "5",
            "50",
            "from",
            "to",
            "London",
            "paris",
            "can't",
            "useful",
            "useless",
            "please",
        ]
    ),
    max_size=8,
).map(" ".join)
any_text = st.one_of(some_words, st.text(max_size=40))
strictness = st.sampled_from(list(Strictness))


@given(any_text, any_text, strictness)
def test_guards_are_symmetric_and_strict_ones_refuse_no_less(one: str, other: str, level: Strictness) -> None:
    left, right = read(one), read(other)
    assert (refusal(left, right, level) is None) == (refusal(right, left, level) is None)
    assert refusal(left, left, level) is None
    if refusal(left, right, Strictness.USUAL) is not None:
        assert refusal(left, right, Strictness.STRICT) is not None


@given(any_text, st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_other_number_passes(text: str, one: int, other: int) -> None:
    if one != other:
        left, right = read(f"{text} {one} dollars"), read(f"{text} {other} dollars")
        assert refusal(left, right, Strictness.USUAL) is not None


@given(some_words, st.sampled_from(("not", "never", "no", "without")), st.integers(0, 8))
def test_no_negation_passes(text: str, negator: str, place: int) -> None:
    parts = text.split()
    denied = " ".join([*parts[:place], negator, *parts[place:]])
    assert refusal(read(text), read(denied), Strictness.USUAL) is not None


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=64), st.integers(1, 3))
def test_any_ids_can_be_signed(ids: list[int], grams: int) -> None:
    signed = MinHashSigner(grams).sign(ids)
    assert set(np.unique(signed).tolist()) <= {-1.0, 1.0}


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.0, 0.5))
def test_what_is_served_is_the_row_of_a_text_that_was_computed(seed: int, capacity: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    computed: dict[bytes, NDArray[np.float32]] = {}
    options = NearOptions(
        promise=Promise(max_error=0.4, confidence=0.6),
        capacity=capacity,
        audit=GuardOptions(audit_share=0.3, learn_first=0, learner=LearnerOptions(window=100, relearn_every=1)),
    )
    tier = NearDuplicateTier(options, GivenSigner(DIMS), computed.get)
    topics = rng.standard_normal((5, DIMS))
    for number in range(150):
        topic = int(rng.integers(5))
        row = (topics[topic] + noise * rng.standard_normal(DIMS)).astype(np.float32)
        query = Query("where is it" + "?" * (number % 3), [1, 2], f"space {topic % 2}", signature=row)
        look = tier.look_up(query)
        if look.serve is None:
            key = bytes([topic % 2]) + number.to_bytes(15, "big")
            computed[key] = row
            tier.learn(query, look, key, row)
        else:
            assert not look.audit
            assert look.serve.key in computed
            assert look.serve.key[0] == topic % 2, "of the same space"
        assert len(tier) <= min(capacity, len(computed))
    assert tier.statistics()["lookups"] == 150
