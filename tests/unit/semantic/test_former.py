"""Namespaces of a model that is no longer served, and namespaces that are emptied."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tandem.errors import InvalidInput, PayloadTooLarge
from tandem.semantic import Journal, Namespace, SemanticCache, SemanticOptions
from tandem.semantic.base import NO_VECTOR
from tandem.vectors.base import IndexOptions
from tandem.vectors.linear import LinearIndex
from tandem.verification import Promise
from tests.unit.semantic.worlds import HERE, Calendar, at, cache, item

OLD, NEW = (Namespace.of("tenant", "answers", None, served) for served in ("old", "new"))
THEIRS = Namespace.of("tenant", "answers", "old", "new")


def opened(folder: Path, options: SemanticOptions) -> tuple[SemanticCache, Journal]:
    journal = Journal(folder)
    store = cache(Calendar(), journal, options)
    store.restore(journal.records)
    return store, journal


def served(model: str, **limits: int) -> SemanticOptions:
    return msgspec.structs.replace(SemanticOptions(served_model=model), **limits)


def test_what_is_not_of_the_served_model_is_of_a_former_one_unless_a_caller_made_it() -> None:
    assert [one.is_former("new") for one in (OLD, NEW, THEIRS)] == [True, False, False]
    assert not OLD.is_former(""), "it is not known what is served"


def test_what_a_former_model_left_goes_first_when_the_budget_is_needed() -> None:
    store = cache(options=served("new", budget_bytes=10_000))
    other = Namespace("another", "answers", "old")
    for namespace in (OLD, other):
        for index in range(3):
            store.store(namespace, item(index))
    assert store.statistics().former_bytes == store.statistics().bytes > 0
    for index in range(20):
        store.store(NEW, item(index, entry_id=str(index)))
        # As long as there is something of the former model, nothing of this one goes.
        if store.statistics().former_bytes:
            assert store.namespaces("tenant")[NEW].entries == index + 1
    statistics = store.statistics()
    assert (statistics.former_bytes, statistics.former_namespaces) == (0, 2)
    assert statistics.bytes <= 10_000
    assert store.namespaces("another")[other].former_model
    assert not store.namespaces("tenant")[NEW].former_model


def test_two_changes_of_the_model_cost_no_namespace(tmp_path: Path) -> None:
    """Each model's namespaces are as many as may be, and after each change as many fit again."""
    for model in ("first", "second", "third"):
        store, journal = opened(tmp_path, served(model, max_tenant_namespaces=5, max_namespaces=6))
        for number in range(5):
            store.store(Namespace("t", str(number), model), item(number, b'"%s"' % model.encode()))
        with pytest.raises(InvalidInput, match="as many namespaces"):
            store.store(Namespace("t", "6", model), item())
        journal.close()
    store, journal = opened(tmp_path, served("third", max_tenant_namespaces=5, max_namespaces=6))
    for number in range(5):
        (hit,) = store.lookup(Namespace("t", str(number), "third"), at(number), 0.99).hits
        assert hit.payload == b'"third"'
    journal.close()


def test_a_former_model_that_comes_back_finds_what_it_left(tmp_path: Path) -> None:
    store, journal = opened(tmp_path, served("old"))
    store.store(OLD, item(0, b"1"))
    journal.close()
    store, journal = opened(tmp_path, served("new"))
    store.store(NEW, item(0, b"2"))
    journal.close()
    store, journal = opened(tmp_path, served("old"))
    assert store.lookup(OLD, at(0), 0.9).hits[0].payload == b"1"
    assert store.namespaces("tenant")[NEW].former_model
    journal.close()


def test_an_emptied_namespace_is_gone_at_once_and_let_go_of_bit_by_bit() -> None:
    store = cache()
    for index in range(1000):
        store.store(HERE, item(index / 10, entry_id=str(index)))
    other = Namespace("tenant", "other")
    store.store(other, item(0, b"7"))
    assert store.delete(HERE) == 1000
    statistics = store.statistics()
    assert (statistics.entries, statistics.namespaces) == (1, 1)
    assert statistics.bytes < 2_000, "nobody is charged for it any more"
    assert store.lookup(HERE, at(0), -1).hits == []
    assert store.serials() == {1001}
    store.store(HERE, item(0, b"8", entry_id="0"))
    assert store.lookup(HERE, at(0), 0.9).hits[0].payload == b"8"
    turns = 0
    while store.sweep():
        turns += 1
    assert turns >= 1000 / 128 - 2
    assert store.lookup(other, at(0), 0.9).hits[0].payload == b"7"
    assert store.lookup(HERE, at(0), 0.9).hits[0].payload == b"8"
    assert store.delete(HERE, ["0"]) == 1


def test_emptying_and_filling_again_and_again_holds_no_more_than_the_budget() -> None:
    """What was emptied is let go of as fast as new entries come, and evictions pass it by."""
    store = cache(options=SemanticOptions(budget_bytes=50_000))
    for _ in range(30):
        for index in range(200):
            store.store(HERE, item(index / 10))
        store.delete(HERE)
    closed = store._shelves._closed
    assert sum(map(len, closed)) <= 200
    while store.sweep():
        continue
    assert store.statistics().bytes == store.statistics().entries == 0
    assert store._shelves.ages._queues == {}


def test_what_would_be_refused_is_known_before_there_is_a_vector() -> None:
    small = SemanticOptions(budget_bytes=5_000, max_tenant_namespaces=1, max_promises=1)
    store = cache(options=small)
    good = msgspec.structs.replace(item(), vector=NO_VECTOR)
    store.directory.check_store(HERE, good, 4)
    assert store.statistics().namespaces == 0
    with pytest.raises(InvalidInput, match="control characters"):
        store.directory.check_store(Namespace("tenant", "a\n"), good, 4)
    with pytest.raises(InvalidInput, match="ttl_s"):
        store.directory.check_store(HERE, msgspec.structs.replace(good, ttl_s=-1.0), 4)
    with pytest.raises(PayloadTooLarge, match="does not fit"):
        store.directory.check_store(HERE, msgspec.structs.replace(good, payload=b"1" * 5_000), 4)
    store.store(HERE, item())
    with pytest.raises(InvalidInput, match="holds vectors of 4"):
        store.directory.check_store(HERE, good, 5)
    with pytest.raises(InvalidInput, match="as many namespaces"):
        store.directory.check_store(Namespace("tenant", "another"), good, 4)
    with pytest.raises(InvalidInput, match="k must be"):
        store.directory.check_lookup(HERE, 4, 0)
    with pytest.raises(InvalidInput, match="holds vectors of 4"):
        store.directory.check_lookup(HERE, 5, 1)
    with pytest.raises(PayloadTooLarge, match="text is over"):
        store.directory.check_lookup(HERE, 4, 1, "a" * 70_000)
    store.directory.check_lookup(HERE, 4, 1, "a", Promise(0.1))
    with pytest.raises(InvalidInput, match="promises already"):
        store.directory.check_lookup(HERE, 4, 1, "a", Promise(0.2))


def test_evictions_pass_by_what_was_emptied_and_is_still_let_go_of() -> None:
    store = cache(options=SemanticOptions(budget_bytes=1_000_000))
    for index in range(1000):
        store.store(HERE, item(index / 10))
    store.delete(HERE)
    for index in range(3):
        store.store(HERE, item(index, b"1" * 600_000, entry_id=str(index)))
    statistics = store.statistics()
    assert (statistics.entries, statistics.evicted) == (1, 2)
    assert [hit.id for hit in store.lookup(HERE, at(0), -1, k=5).hits] == ["2"]


def test_what_an_index_does_in_the_background_ends_with_its_namespace() -> None:
    """And not when the last of its entries has been let go of, which may never be, at the end of a process."""
    ended: list[str] = []

    class Watched(LinearIndex):
        def close(self) -> None:
            ended.append("index")

    store = cache(make_index=lambda dims: Watched(IndexOptions(dims=dims)))
    store.store(HERE, item())
    store.store(OLD, item())
    store.delete(HERE)
    assert len(ended) == 1
    store.close()
    assert len(ended) == 2
