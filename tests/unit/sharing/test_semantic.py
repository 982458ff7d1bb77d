"""Semantic caches that are shared, without Redis: a board and values in memory, as bad as a test wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tandem.caches import build_semantic
from tandem.caching.federated_wire import Addition
from tandem.clock import ManualClock, SystemClock
from tandem.config import Settings
from tandem.errors import ConfigError, InvalidInput
from tandem.semantic.base import Namespace, SemanticOptions
from tandem.semantic.service import SemanticService
from tandem.sharing.copies import SharingOptions
from tandem.sharing.notes import Copy, Note, Value, key_of, scope_of
from tandem.sharing.semantic import SharedSemantic
from tandem.vectors.base import IndexOptions
from tandem.vectors.linear import LinearIndex
from tests.federated_board import DIMS, replica, until
from tests.semantic_fleet import OURS, VECTORS, Fleet, found, item, state_of


async def test_what_one_stored_another_finds(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    given, made = one.store(OURS, item(1, id="given")), one.store(OURS, item(2))
    await fleet.settled()
    fleet.clock.advance(5.0)
    (hit,) = (await other.lookup(OURS, 3 * VECTORS[1], 0.95, k=4)).hits
    assert (given, hit.id, hit.payload, hit.text, hit.age_s) == ("given", "given", b'{"n":1}', "text 1", 5.0)
    assert hit.similarity == pytest.approx(1.0, abs=0.01)
    assert await found(other, 2) == [made]
    assert await found(other, 3) == []
    assert other.cache.statistics().entries == 0


async def test_what_is_here_is_found_without_the_others(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1, id="here"))
    other.store(OURS, item(1, id="there"))
    await fleet.settled()
    assert await found(one, 1) == ["here"]
    assert await found(other, 1) == ["there"]
    assert all(values.asked == [] for values in fleet.hall.kept.values())


async def test_two_that_begin_together_name_their_entries_differently(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    assert one.store(OURS, item(1)) != other.store(OURS, item(2))


@pytest.mark.parametrize(
    "stranger",
    [Namespace("else", "name", "model"), Namespace("tenant", "else", "model"), Namespace("tenant", "name", "else")],
    ids=str,
)
async def test_tenants_names_and_models_do_not_meet(fleet: Fleet, stranger: Namespace) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1))
    await fleet.settled()
    await fleet.settled(stranger)
    assert await found(other, 1, stranger) == []
    assert await other.delete(stranger, dims=DIMS) == 0
    assert await found(other, 1) != []


def test_scopes_are_told_apart_whatever_the_names() -> None:
    one = scope_of(Namespace("a", 'b","c'), "int8", 8)
    other = scope_of(Namespace('a","b', "c"), "int8", 8)
    assert one.id() != other.id()


async def test_vectors_of_another_length_are_another_scope(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1))
    await fleet.settled()
    assert (await other.lookup(OURS, np.ones(3, np.float32), 0.5)).hits == []
    with pytest.raises(InvalidInput):
        await one.lookup(OURS, np.ones(3, np.float32), 0.5)


async def test_what_one_deletes_is_gone_from_who_stored_it(fleet: Fleet) -> None:
    one, other, third = fleet.join(), fleet.join(), fleet.join()
    for number in (1, 2):
        one.store(OURS, item(number, id=str(number)))
    await fleet.settled()
    assert await other.delete(OURS, ["1", "never there"]) == 1
    await fleet.settled()
    for instance in (one, other, third):
        assert await found(instance, 1) == []
        assert await found(instance, 2) == ["2"]
    assert one.cache.statistics().entries == 1
    assert await one.delete(OURS, ["2"]) == 1
    await fleet.settled()
    assert await found(third, 2) == []
    assert all(values.kept == {} for values in fleet.hall.kept.values())


async def test_what_nobody_here_has_used_can_be_deleted(fleet: Fleet) -> None:
    one = fleet.join()
    one.store(OURS, item(1, id="x"))
    one.store(OURS, item(2, id="y"))
    await fleet.settled()
    other = fleet.join()
    assert await other.delete(OURS, ["x"]) == 0, "nobody asked it of it, and it does not know how long its vectors are"
    await other.delete(OURS, ["x"], dims=DIMS)
    await fleet.settled()
    assert await found(one, 1) == await found(other, 1) == []
    assert await found(other, 2) == ["y"]


async def test_an_emptied_namespace_is_empty_everywhere(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    for number in (1, 2):
        one.store(OURS, item(number))
    other.store(OURS, item(3))
    await fleet.settled()
    newcomer = fleet.join()
    # It has read nothing yet, and empties what it does not know.
    await newcomer.delete(OURS, dims=DIMS)
    fleet.clock.advance(0.1)
    newcomer.store(OURS, item(4, id="after"))
    await fleet.settled()
    for instance in (one, other, newcomer, fleet.join()):
        await fleet.settled()
        assert [await found(instance, number) for number in (1, 2, 3, 4)] == [[], [], [], ["after"]]


async def test_a_calendar_that_is_ahead_empties_nothing_that_comes(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1))
    await fleet.settled()
    before = fleet.clock
    fleet.clock = ManualClock(2e9)
    ahead = fleet.join()
    await ahead.delete(OURS, dims=DIMS)
    fleet.instances.remove(ahead)
    await ahead.close()
    await fleet.settled()
    assert await found(other, 1) == []
    before.advance(1.0)
    one.store(OURS, item(2, id="later"))
    await fleet.settled()
    assert await found(other, 2) == ["later"]


async def test_of_one_id_the_later_entry_counts(fleet: Fleet) -> None:
    one, other, third = fleet.join(), fleet.join(), fleet.join()
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    fleet.clock.advance(1.0)
    other.store(OURS, msgspec.structs.replace(item(2, id="x"), payload=b"2"))
    await fleet.settled()
    for instance in (one, other, third):
        assert await found(instance, 1) == []
    assert await found(one, 2) == [], "it has the old value at hand, and serves none for so long"
    fleet.clock.advance(10.1)
    for instance in (one, other, third):
        (hit,) = (await instance.lookup(OURS, VECTORS[2], 0.95)).hits
        assert (hit.id, hit.payload) == ("x", b"2")


async def test_a_value_that_is_not_the_notes_is_no_hit(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    (values,) = [values for values in fleet.hall.kept.values() if values.kept]
    for wrong in (msgspec.msgpack.encode(Value(b"another", None)), b"rubbish"):
        values.kept[key_of("x")] = wrong
        assert await found(other, 1) == []
        fleet.clock.advance(60.0)
    report = other.federation()
    assert report is not None
    assert report.counters["mismatched"] == 2
    assert report.peers == 1
    fleet.clock.advance(600.0)
    later = other.federation()
    assert later is not None
    assert later.peers == 0


async def test_what_has_expired_is_no_hit_and_hides_nothing(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1, id="short", ttl_s=10.0))
    near = msgspec.structs.replace(item(1, id="long"), vector=VECTORS[1] + 0.1 * VECTORS[2], ttl_s=100.0)
    one.store(OURS, near)
    await fleet.settled()
    assert await found(other, 1) == ["short"]
    fleet.clock.advance(10.0)
    assert await found(other, 1) == ["long"]
    fleet.clock.advance(90.0)
    assert await found(other, 1) == await found(one, 1) == []


async def test_trouble_costs_misses_and_nothing_else(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1, id="a"))
    one.store(OURS, item(2, id="b"))
    await fleet.settled()
    assert await found(other, 1) == ["a"]
    fleet.hall.fail(ConnectionError("cut off"))
    one.store(OURS, item(3, id="c"))
    assert await found(one, 3) == ["c"]
    assert await found(other, 1) == ["a"], "it is at hand"
    assert await found(other, 2) == []
    assert await one.delete(OURS, ["b"]) == 1
    await until(lambda: "cut off" in state_of(one) and "cut off" in state_of(other))
    assert one.state() == "ok"
    fleet.hall.fail(None)
    fleet.clock.advance(10.0)
    await fleet.settled()
    assert await found(other, 3) == ["c"]
    assert await found(other, 2) == []


async def test_a_redis_that_is_down_at_the_start_costs_misses(fleet: Fleet) -> None:
    scope = scope_of(OURS, "int8", DIMS).id()
    fleet.hall.boards[scope].trouble = fleet.hall.kept[scope].trouble = ConnectionError("refused")
    one = fleet.join()
    assert state_of(one) == "no namespace is shared yet"
    assert await found(one, 1) == []
    one.store(OURS, item(1, id="x"))
    assert await found(one, 1) == ["x"]
    await until(lambda: "refused" in state_of(one))


async def test_an_own_entry_outlives_the_news_of_it(fleet: Fleet, tmp_path: Path) -> None:
    """An instance that starts anew reads what it wrote itself, and what it has on its disk is no older for that."""
    one = fleet.join(tmp_path)
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    again = await fleet.restarted(one, tmp_path)
    assert again.cache.statistics().entries == 1
    assert await found(again, 1) == ["x"]


async def test_so_many_namespaces_are_shared_and_no_tenant_costs_another_its_own(fleet: Fleet) -> None:
    one = fleet.join(namespaces=3)
    first = Namespace("a", "0", "model")
    one.store(first, item(1))
    for number in range(5):
        one.store(Namespace("b", str(number), "model"), item(1))
    report = one.federation()
    assert report is not None
    assert (report.namespaces, report.counters["parted"], report.counters["entries"]) == (3, 3, 3)
    assert report.counters["stored"] == 6, "what was counted stays counted"
    other = fleet.join()
    await fleet.settled(first)
    assert len(await found(other, 1, first)) == 1


async def test_long_payloads_stay_where_they_are(fleet: Fleet) -> None:
    one, other = fleet.join(value_bytes=100), fleet.join()
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    assert await found(other, 1) == ["x"]
    fleet.clock.advance(1.0)
    one.store(OURS, msgspec.structs.replace(item(1, id="x"), payload=b"1" * 200))
    await fleet.settled()
    assert await found(one, 1) == ["x"]
    assert await found(other, 1) == []


async def test_what_waits_is_bounded(fleet: Fleet) -> None:
    one = fleet.join(unshared=2)
    for number in range(5):
        one.store(OURS, item(number))
    report = one.federation()
    assert report is not None
    assert (report.counters["left_out"], report.counters["unshared"]) == (3, 2)


async def test_an_entry_that_found_no_room_is_not_shared() -> None:
    fleet = Fleet()
    small = SemanticOptions(budget_bytes=1200)
    service = SemanticService(small, lambda dims: LinearIndex(IndexOptions(dims=dims)), fleet.clock, None)
    one = SharedSemantic(service, fleet.clock, fleet.hall)
    for number in range(3):
        one.store(OURS, item(number))
    assert one.cache.statistics().entries == 1
    await one.close()


async def test_who_closes_says_what_waits_and_closes_once(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    await fleet.settled()
    one.store(OURS, item(1))
    await one.close()
    await one.close()
    fleet.instances.remove(one)
    await fleet.settled()
    assert len(await found(other, 1)) == 1


async def test_who_has_the_secret_believes_nobody_else(fleet: Fleet) -> None:
    one, same, stranger = fleet.join(secret=b"s"), fleet.join(secret=b"s"), fleet.join()
    one.store(OURS, item(1))
    stranger.store(OURS, item(2))
    await fleet.settled()
    assert len(await found(same, 1)) == 1
    assert await found(same, 2) == []
    assert await found(stranger, 1) == []


async def test_alone_it_is_the_cache_it_has() -> None:
    one = build_semantic(Settings(), SystemClock())
    assert one is not None
    entry = one.store(OURS, item(1))
    assert await found(one, 1) == [entry]
    assert await one.delete(OURS, dims=DIMS) == 1
    assert one.federation() is None
    await one.close()


def test_notes_that_are_not_ours_are_refused() -> None:
    clock = ManualClock(1e9)
    service = SemanticService(SemanticOptions(), lambda dims: LinearIndex(IndexOptions(dims=dims)), clock, None)
    service.cache.store(OURS, item(1, id="x"))
    copy = Copy(replica(), service.cache, OURS, clock, lambda: None)
    signature = np.full(DIMS, 100, np.int8).tobytes()
    moved = msgspec.msgpack.encode(Note("x", 2e9, None, b"digest"))
    added = [Addition(key_of("y"), signature, moved), Addition(key_of("x"), signature, b"rubbish")]
    assert copy.fold(added, {key_of("x"): 1e9}) == 2
    assert len(copy) == 0
    assert service.cache.statistics().entries == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"semantic_cache_redis": "redis://localhost", "semantic_cache": "off"}, "off"),
        ({"semantic_cache_redis": "localhost:6379"}, "URL"),
        ({"semantic_cache_secret_file": "x"}, "semantic_cache_redis"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build_semantic(Settings(**changes), SystemClock())  # type: ignore[arg-type]


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    settings = Settings(semantic_cache_redis="redis://localhost", semantic_cache_secret_file=str(file))
    with pytest.raises(ConfigError, match="can not be read"):
        build_semantic(settings, SystemClock())
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        build_semantic(settings, SystemClock())
    file.write_text("a secret longer than sixty-four bytes, which is what the wire takes at the most\n")
    assert build_semantic(settings, SystemClock()) is not None


@pytest.mark.parametrize("name", ["namespaces", "entries", "value_bytes", "unshared"])
def test_limits_are_checked(name: str) -> None:
    limits: dict[str, Any] = {name: 0}
    with pytest.raises(ConfigError, match=name):
        SharingOptions(**limits)
