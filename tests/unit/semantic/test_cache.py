from __future__ import annotations

import numpy as np
import pytest

from tandem.errors import InvalidInput, PayloadTooLarge
from tandem.semantic import Item, Namespace, SemanticOptions
from tests.unit.semantic.worlds import HERE, Calendar, at, cache, item


def test_what_is_near_is_found_with_its_payload_similarity_and_age() -> None:
    clock = Calendar()
    store = cache(clock)
    first = store.store(HERE, Item(vector=at(0), payload=b'{"a": 1}', text="the question"))
    clock.advance(30)
    found = store.lookup(HERE, at(10), 0.95)
    (hit,) = found.hits
    assert (hit.id, hit.payload, hit.text, hit.age_s) == (first, b'{"a": 1}', "the question", 30)
    assert hit.similarity == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    assert store.lookup(HERE, at(30), 0.95).hits == []
    assert (found.audit, found.lookup_id) == (False, None)


def test_k_results_come_best_first() -> None:
    store = cache()
    ids = [store.store(HERE, item(degrees)) for degrees in (20, 0, 10, 80)]
    found = [hit.id for hit in store.lookup(HERE, at(2), 0.5, k=10).hits]
    assert found == [ids[1], ids[2], ids[0]]
    assert [hit.id for hit in store.lookup(HERE, at(2), 0.5, k=2).hits] == found[:2]


def test_the_length_of_a_vector_does_not_matter() -> None:
    store = cache()
    store.store(HERE, Item(vector=at(0) * 1e-6, payload=b"1"))
    assert store.lookup(HERE, at(0) * 1e6, 0.999).hits[0].similarity == pytest.approx(1)


@pytest.mark.parametrize(
    "other", [Namespace("another", "answers"), Namespace("tenant", "other"), Namespace("tenant", "answers", "model")]
)
def test_namespaces_do_not_meet(other: Namespace) -> None:
    store = cache()
    entry = store.store(HERE, item(entry_id="same"))
    store.store(other, item(90, b"2", entry_id="same"))
    assert [hit.payload for hit in store.lookup(HERE, at(0), -1, k=10).hits] == [b"1"]
    assert [hit.payload for hit in store.lookup(other, at(0), -1, k=10).hits] == [b"2"]
    assert store.delete(other) == 1
    assert store.lookup(other, at(90), -1).hits == []
    with pytest.raises(InvalidInput):
        store.feedback(other, entry, True)
    assert store.lookup(HERE, at(0), 0.9).hits


def test_an_id_that_is_there_is_replaced() -> None:
    store = cache()
    store.store(HERE, item(0, b"1", entry_id="x"))
    store.store(HERE, item(90, b"2", entry_id="x"))
    assert store.lookup(HERE, at(0), 0.9).hits == []
    assert store.lookup(HERE, at(90), 0.9).hits[0].payload == b"2"
    assert store.statistics().entries == 1


def test_deleting_some_and_all() -> None:
    store = cache()
    ids = [store.store(HERE, item(degrees)) for degrees in (0, 10, 20)]
    assert store.delete(HERE, [ids[0], ids[0], "never there"]) == 1
    assert [hit.id for hit in store.lookup(HERE, at(0), -1, k=5).hits] == ids[1:]
    assert store.delete(HERE) == 2
    assert store.delete(HERE) == 0
    assert store.statistics().bytes == store.statistics().entries == 0


def test_an_entry_lives_as_long_as_it_was_given() -> None:
    clock = Calendar()
    store = cache(clock)
    store.store(HERE, item(0, b"1", ttl_s=10))
    store.store(HERE, item(5, b"2"))
    clock.advance(9.99)
    assert len(store.lookup(HERE, at(0), 0.9, k=5).hits) == 2
    clock.advance(0.02)
    assert [hit.payload for hit in store.lookup(HERE, at(0), 0.9, k=5).hits] == [b"2"]
    assert store.statistics().expired == 1


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_jump_of_the_calendar_neither_keeps_nor_drops_anything(jump_s: float) -> None:
    clock = Calendar()
    store = cache(clock, options=SemanticOptions(default_ttl_s=10))
    store.store(HERE, item())
    clock.calendar_s += jump_s
    assert store.lookup(HERE, at(0), 0.9).hits[0].age_s == 0
    clock.advance(11)
    assert store.lookup(HERE, at(0), 0.9).hits == []


def test_replacing_for_ever_keeps_no_memory_of_what_was() -> None:
    clock = Calendar()
    store = cache(clock)
    for index in range(5_000):
        store.store(HERE, item(index / 100, entry_id="same", ttl_s=100))
    store.store(HERE, item(0, entry_id="another", ttl_s=10))
    clock.advance(50)
    assert [hit.id for hit in store.lookup(HERE, at(50), -1, k=5).hits] == ["same"]
    clock.advance(51)
    assert store.lookup(HERE, at(50), -1).hits == []
    for _ in range(3):
        store.sweep()
    assert (store.statistics().expired, store.statistics().entries) == (2, 0)


def test_many_that_expire_together_hide_nothing_that_lives() -> None:
    clock = Calendar()
    store = cache(clock)
    for index in range(500):
        store.store(HERE, item(index / 1000, ttl_s=10))
    store.store(HERE, item(5, b"2"))
    clock.advance(11)
    assert [hit.payload for hit in store.lookup(HERE, at(0), 0.9, k=3).hits] == [b"2"]
    for _ in range(10):
        store.sweep()
    assert store.statistics().entries == 1


def test_over_the_budget_what_nobody_asked_for_goes_first() -> None:
    store = cache(options=SemanticOptions(budget_bytes=10_000))
    kept = store.store(HERE, item(0, b"7", entry_id="asked for"))
    for index in range(200):
        store.lookup(HERE, at(0), 0.999)
        store.store(HERE, item(45 + index / 10, entry_id=str(index)))
    statistics = store.statistics()
    assert statistics.bytes <= 10_000
    assert statistics.evicted + statistics.entries == 201
    assert store.lookup(HERE, at(0), 0.999).hits[0].id == kept
    assert store.lookup(HERE, at(65), 0.9999).hits[0].id == "199"


def test_a_tenant_that_stores_without_end_pays_itself() -> None:
    store = cache(options=SemanticOptions(budget_bytes=20_000))
    quiet = Namespace("quiet", "n")
    for index in range(5):
        store.store(quiet, item(index * 10))
    for index in range(500):
        store.store(Namespace("loud", f"n{index % 7}"), item(index / 10))
    assert len(store.lookup(quiet, at(0), -1, k=10).hits) == 5


def test_an_entry_over_the_whole_budget_is_refused_and_costs_nothing() -> None:
    store = cache(options=SemanticOptions(budget_bytes=2_000))
    store.store(HERE, item())
    with pytest.raises(PayloadTooLarge, match="does not fit"):
        store.store(HERE, item(0, b"1" * 3_000))
    assert store.statistics().entries == 1


def test_namespaces_are_limited_and_idle_ones_make_room() -> None:
    store = cache(options=SemanticOptions(max_namespaces=2))
    names = [Namespace("t", name) for name in "abc"]
    for name in names[:2]:
        store.store(name, item(entry_id="x"))
    with pytest.raises(InvalidInput, match="as many namespaces are in use as may be"):
        store.store(names[2], item())
    store.delete(names[0], ["x"])
    store.store(names[2], item())
    assert set(store.namespaces("t")) == {names[1], names[2]}


def test_one_tenant_can_not_take_all_namespaces() -> None:
    store = cache(options=SemanticOptions(max_tenant_namespaces=3))
    for name in "abc":
        store.store(Namespace("greedy", name), item())
    with pytest.raises(InvalidInput, match="3 of a tenant"):
        store.store(Namespace("greedy", "d"), item())
    store.store(Namespace("modest", "d"), item())


def test_looking_up_what_was_never_stored_makes_nothing() -> None:
    store = cache()
    assert store.lookup(HERE, at(0), 0.9).hits == []
    assert store.statistics().namespaces == 0
    assert store.statistics().lookups == 1


BAD_VECTORS = {
    "shape": np.zeros((1, 4), np.float32),
    r"1 to 8192": np.zeros(0, np.float32),
    "not finite": np.array([1, np.nan, 0, 0], np.float32),
    r"are not finite": np.array([np.inf, 0, 0, 0], np.float32),
    "no direction": np.zeros(4, np.float32),
    "holds vectors of 4": np.ones(5, np.float32),
}


@pytest.mark.parametrize("words", BAD_VECTORS)
def test_a_vector_that_makes_no_sense_is_refused(words: str) -> None:
    store = cache()
    store.store(HERE, item())
    vector = BAD_VECTORS[words]
    with pytest.raises(InvalidInput, match=words):
        store.store(HERE, Item(vector=vector, payload=b"1"))
    with pytest.raises(InvalidInput, match=words):
        store.lookup(HERE, vector, 0.9)
    assert store.statistics().entries == 1


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), 1.01, -1.01])
def test_a_threshold_that_is_no_cosine_is_refused(threshold: float) -> None:
    with pytest.raises(InvalidInput, match="threshold"):
        cache().lookup(HERE, at(0), threshold)


@pytest.mark.parametrize("k", [0, -1, 101])
def test_k_has_bounds(k: int) -> None:
    with pytest.raises(InvalidInput, match="k must be from 1 to 100"):
        cache().lookup(HERE, at(0), 0.9, k)


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf"), 1e12])
def test_a_time_to_live_has_bounds(ttl_s: float) -> None:
    with pytest.raises(InvalidInput, match="ttl_s"):
        cache().store(HERE, item(ttl_s=ttl_s))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (Item(vector=at(0), payload=b""), InvalidInput),
        (Item(vector=at(0), payload=b"1" * 1_048_577), PayloadTooLarge),
        (Item(vector=at(0), payload=b"1", text="a" * 65_537), PayloadTooLarge),
        (Item(vector=at(0), payload=b"1", text="\ud800"), InvalidInput),
        (Item(vector=at(0), payload=b"1", id=""), InvalidInput),
        (Item(vector=at(0), payload=b"1", id="a" * 201), InvalidInput),
        (Item(vector=at(0), payload=b"1", id="a\n"), InvalidInput),
    ],
)
def test_an_item_has_bounds(given: Item, error: type[Exception]) -> None:
    store = cache()
    with pytest.raises(error):
        store.store(HERE, given)
    assert store.statistics().namespaces == 0


@pytest.mark.parametrize("name", ["", "n" * 201, "a\0b", "\ud800"])
def test_a_namespace_has_a_name(name: str) -> None:
    with pytest.raises(InvalidInput, match="namespace"):
        cache().store(Namespace("tenant", name), item())
    with pytest.raises(InvalidInput, match="namespace"):
        cache().lookup(Namespace("tenant", name), at(0), 0.9)
