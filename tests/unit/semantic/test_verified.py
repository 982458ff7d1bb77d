from __future__ import annotations

import numpy as np
import pytest

from tandem.errors import InvalidInput
from tandem.semantic import Item, Namespace, SemanticCache, SemanticOptions
from tandem.verification import GuardOptions, Promise
from tests.unit.semantic.worlds import HERE, Calendar, at, cache, item

PROMISE = Promise(0.1)


def teach(store: SemanticCache, n: int, right_within: float = 10.0) -> None:
    """Questions at random angles from the one answer; those within ``right_within`` degrees have it."""
    chance = np.random.default_rng(0)
    for _ in range(n):
        angle = float(chance.uniform(0, 20))
        found = store.lookup_verified(HERE, at(angle), PROMISE)
        if found.audit:
            assert found.lookup_id is not None
            assert store.feedback(HERE, found.lookup_id, right=angle < right_within)


def test_it_serves_nothing_and_asks_until_it_can_keep_its_promise() -> None:
    store = cache()
    entry = store.store(HERE, item())
    found = store.lookup_verified(HERE, at(1), PROMISE)
    assert (found.hits, found.threshold, found.audit) == ([], None, True)
    assert found.candidate is not None
    assert found.candidate.id == entry
    teach(store, 1_000)
    found = store.lookup_verified(HERE, at(1), PROMISE)
    assert [hit.id for hit in found.hits] == [entry]
    assert found.candidate is None
    assert found.threshold is not None
    # Of questions within 11.1 degrees a tenth is wrong.
    assert store.lookup_verified(HERE, at(8), PROMISE).hits
    assert store.lookup_verified(HERE, at(11.2), PROMISE).hits == []
    (statistics,) = store.namespaces("tenant").values()
    assert statistics.promises[0].report.learned.threshold == found.threshold
    assert statistics.lookup_hits > 0


def test_then_it_asks_seldom() -> None:
    store = cache(options=SemanticOptions(guard=GuardOptions(learn_first=500, audit_share=0.1)))
    store.store(HERE, item())
    teach(store, 600)
    asked = sum(store.lookup_verified(HERE, at(1), PROMISE).audit for _ in range(1_000))
    assert 50 < asked < 160


def test_when_answers_go_wrong_it_stops() -> None:
    store = cache()
    store.store(HERE, item())
    teach(store, 800)
    teach(store, 200, right_within=0)
    found = store.lookup_verified(HERE, at(1), PROMISE)
    assert (found.hits, found.threshold) == ([], None)
    assert store.namespaces("tenant")[HERE].promises[0].report.alarms == 1


def test_nothing_to_compare_with_is_no_label() -> None:
    clock = Calendar()
    store = cache(clock)
    assert not store.lookup_verified(HERE, at(0), PROMISE).audit
    store.store(HERE, item(ttl_s=1))
    clock.advance(2)
    assert not store.lookup_verified(HERE, at(0), PROMISE).audit


def test_each_audit_is_answered_once_and_only_at_home() -> None:
    store = cache()
    store.store(HERE, item())
    lookup_id = store.lookup_verified(HERE, at(0), PROMISE).lookup_id
    assert lookup_id is not None
    with pytest.raises(InvalidInput, match="waits for feedback"):
        store.feedback(Namespace("another", "answers"), lookup_id, True)
    assert store.feedback(HERE, lookup_id, True)
    with pytest.raises(InvalidInput, match="waits for feedback"):
        store.feedback(HERE, lookup_id, True)


def test_feedback_that_nobody_asked_for_is_counted_and_teaches_nothing() -> None:
    store = cache()
    entry = store.store(HERE, item())
    store.lookup_verified(HERE, at(0), PROMISE)
    for right in (True, False, False):
        assert not store.feedback(HERE, entry, right)
    statistics = store.namespaces("tenant")[HERE]
    assert (statistics.feedback_right, statistics.feedback_wrong) == (1, 2)
    assert statistics.promises[0].report.learned.labels == 0


def test_audits_that_are_never_answered_are_given_up() -> None:
    store = cache(options=SemanticOptions(max_pending=3))
    store.store(HERE, item())
    ids = [store.lookup_verified(HERE, at(0), PROMISE).lookup_id for _ in range(4)]
    assert ids[0] is not None
    assert ids[3] is not None
    with pytest.raises(InvalidInput):
        store.feedback(HERE, ids[0], True)
    assert store.feedback(HERE, ids[3], True)


def test_texts_tell_apart_what_the_cosine_can_not() -> None:
    """Every answer is one of two, at the same distance; only the words say which questions have it."""
    store = cache()
    store.store(HERE, Item(vector=at(0), payload=b"1", text="how do I open an account"))
    chance = np.random.default_rng(0)
    for index in range(3_000):
        angle, right = float(chance.uniform(5, 10)), bool(index % 2)
        text = f"how do I {'open' if right else 'close'} an account"
        found = store.lookup_verified(HERE, at(angle), PROMISE, text=text)
        if found.lookup_id is not None:
            store.feedback(HERE, found.lookup_id, right)
    hits = [
        len(store.lookup_verified(HERE, at(6), PROMISE, text=f"how do I {verb} an account").hits)
        for verb in ("open", "close")
    ]
    assert hits == [1, 0]


def test_a_farther_entry_is_not_served_in_the_place_of_the_nearest() -> None:
    store = cache()
    store.store(HERE, item())
    teach(store, 1_000)
    assert len(store.lookup_verified(HERE, at(4), PROMISE, k=5).hits) == 1
    ids = [store.store(HERE, item(angle)) for angle in (3, 12, 20)]
    hits = store.lookup_verified(HERE, at(4), PROMISE, k=5).hits
    assert [hit.id for hit in hits][:1] == ids[:1]


def test_promises_of_a_namespace_are_limited() -> None:
    store = cache(options=SemanticOptions(max_promises=2))
    store.store(HERE, item())
    for share in (0.1, 0.2, 0.1):
        store.lookup_verified(HERE, at(0), Promise(share))
    with pytest.raises(InvalidInput, match=r"2 promises already \(0\.1 at 0\.95, 0\.2 at 0\.95\)"):
        store.lookup_verified(HERE, at(0), Promise(0.3))


@pytest.mark.parametrize(
    "promise", [Promise(5e-324), Promise(0.99), Promise(0.1, 1 - 1e-12), Promise(0.1, 1e-300)], ids=repr
)
def test_a_promise_that_nothing_could_prove_is_refused_and_spoils_no_report(promise: Promise) -> None:
    store = cache()
    store.store(HERE, item())
    with pytest.raises(InvalidInput, match="must be from"):
        store.lookup_verified(HERE, at(0), promise)
    with pytest.raises(InvalidInput, match="must be from"):
        store.directory.check_lookup(HERE, 4, 1, promise=promise)
    assert store.namespaces("tenant")[HERE].promises == []


@pytest.mark.parametrize(("max_error", "confidence"), [(1e-4, 0.9999), (1e-4, 0.5), (0.9, 0.5), (0.9, 0.9999)])
def test_promises_at_the_bounds_are_reported(max_error: float, confidence: float) -> None:
    store = cache()
    store.store(HERE, item())
    store.lookup_verified(HERE, at(0), Promise(max_error, confidence))
    (report,) = store.namespaces("tenant")[HERE].promises
    assert "serves nothing" in report.report.words
