"""Which namespaces an instance shares, and what deletions do wherever they are heard of."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tandem.semantic.base import Item, Namespace
from tandem.sharing.notes import emptied_at, emptied_by, key_of, scope_of
from tests.federated_board import DIMS, rows, until
from tests.semantic_fleet import OURS, Fleet, found, item, members_of


async def test_to_look_up_where_nobody_stores_is_no_part_in_it(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    for number in range(200):
        assert await found(one, 1, Namespace("a", str(number), "model")) == []
    await until(lambda: not members_of(one)._asking)
    report = one.federation()
    assert report is not None
    assert (report.namespaces, report.counters.get("parted", 0)) == (0, 0)
    other.store(Namespace("a", "7", "model"), item(1))
    await fleet.settled(Namespace("a", "7", "model"))
    assert len(await found(one, 1, Namespace("a", "7", "model"))) == 1


async def test_a_namespace_is_asked_about_once_in_a_while_and_a_silent_redis_costs_misses(fleet: Fleet) -> None:
    one = fleet.join(ask_every_s=1.0)
    board = fleet.hall.boards[scope_of(OURS, "int8", DIMS).id()]
    board.trouble = ConnectionError("refused")
    for _ in range(3):
        for _ in range(5):
            assert await found(one, 1) == []
        await until(lambda: not members_of(one)._asking)
        fleet.clock.advance(1.0)
    assert board.calls == 3
    report = one.federation()
    assert report is not None
    assert report.counters == {"unanswered": 3}


async def test_who_goes_through_names_while_redis_is_silent_holds_few_of_them(fleet: Fleet) -> None:
    one = fleet.join(namespaces=3, closing=2)
    fleet.hall.silence.clear()
    for number in range(50):
        one.store(Namespace("a", str(number), "model"), item(1))
        await asyncio.sleep(0)
    report = one.federation()
    assert report is not None
    assert (report.namespaces, report.counters["parted"], report.counters["left_out"]) == (3, 2, 45)
    assert len(members_of(one)._closing) == 2
    # What is deleted must be told, so it waits for its turn.
    deleting = asyncio.create_task(one.delete(Namespace("a", "49", "model")))
    await asyncio.sleep(0)
    fleet.hall.silence.set()
    assert await deleting == 1


async def test_what_is_deleted_while_an_instance_is_away_is_gone_when_it_is_back(fleet: Fleet, tmp_path: Path) -> None:
    """Also where a snapshot was written since, which knows nothing of what went."""
    one, other = fleet.join(tmp_path), fleet.join()
    for number in range(1, 4):
        one.store(OURS, item(number, id=str(number)))
    await fleet.settled()
    fleet.instances.remove(one)
    await one.close()
    await other.delete(OURS, ["1"])
    await other.delete(OURS, ["2"])
    other.store(OURS, item(2, id="2"))
    await fleet.settled()
    member = members_of(other).get((OURS, DIMS))
    assert member is not None
    await member.cache.federation.keep()
    again = fleet.join(tmp_path)
    await fleet.settled()
    assert [await found(again, number) for number in (1, 2, 3)] == [[], ["2"], ["3"]]
    assert again.cache.kept(OURS, ["1"]) == []


async def test_what_is_deleted_elsewhere_goes_also_where_it_was_never_shared(fleet: Fleet) -> None:
    one, other = fleet.join(value_bytes=100), fleet.join()
    one.store(OURS, item(1, id="short"))
    one.store(OURS, msgspec.structs.replace(item(2, id="long"), payload=b"1" * 200))
    await fleet.settled()
    assert await other.delete(OURS, ["long"]) == 0
    await fleet.settled()
    assert await found(one, 2) == []
    assert await found(one, 1) == ["short"]


async def test_a_namespace_of_thousands_is_emptied_at_once_and_bit_by_bit(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    many = rows(1000, seed=1)
    for number, vector in enumerate(many):
        one.store(OURS, Item(vector=vector, payload=b"1", id=str(number)))
        if number % 250 == 0:
            await fleet.settled()
    await fleet.settled()
    turns = 0
    deleting = asyncio.create_task(other.delete(OURS))
    while not deleting.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 1:
            assert (await other.lookup(OURS, many[999], 0.99)).hits == []
    assert await deleting == 999, "the look-up has let go of one"
    assert turns > 1000 / 64
    await fleet.settled()
    await until(lambda: one.cache.statistics().entries == 0)
    assert (await one.lookup(OURS, many[0], 0.99)).hits == []


async def away(fleet: Fleet, folder: Path) -> None:
    """An instance has an entry "x" on its disk, and is gone."""
    instance = fleet.join(folder)
    instance.store(OURS, item(1, id="x"))
    await fleet.settled()
    fleet.instances.remove(instance)
    await instance.close()
    fleet.clock.advance(1.0)


async def test_a_namespace_of_more_than_the_stream_holds_is_emptied_for_who_comes_back(
    fleet: Fleet, tmp_path: Path
) -> None:
    one = fleet.join()
    await away(fleet, tmp_path)
    board = fleet.hall.boards[scope_of(OURS, "int8", DIMS).id()]
    board.stream_entries = 20
    for number in range(30):
        one.store(OURS, item(number % 20, id=str(number)))
    await fleet.settled()
    last = board.stream[-1][0]
    fleet.clock.advance(1.0)
    assert await one.delete(OURS) == 31
    await fleet.settled()
    assert len([place for place, _ in board.stream if place > last]) == 1
    assert all(values.kept == {} for values in fleet.hall.kept.values())
    again = fleet.join(tmp_path)
    await fleet.settled()
    await until(lambda: again.cache.statistics().entries == 0)


def test_that_all_is_gone_holds_of_the_moment_that_it_is_said() -> None:
    """It travels in whole microseconds, which are not cut off: nothing else says that such an entry is gone."""
    moments = np.random.default_rng(0).uniform(1.7e9, 1.8e9, 1000).tolist()
    assert all(moment <= emptied_by([emptied_at(moment)]) < moment + 2e-6 for moment in moments)


async def test_that_all_is_gone_is_told_again_however_much_was_deleted_since(fleet: Fleet, tmp_path: Path) -> None:
    one = fleet.join()
    await away(fleet, tmp_path)
    await one.delete(OURS)
    await fleet.settled()
    for start in range(0, 5000, 500):
        await one.delete(OURS, [f"another {number}" for number in range(start, start + 500)])
        await fleet.settled()
    board = fleet.hall.boards[scope_of(OURS, "int8", DIMS).id()]
    board.restart()
    board.stream_entries = 10_000
    await until(lambda: len(board.stream) > 4096)
    again = fleet.join(tmp_path)
    await fleet.settled()
    await until(lambda: again.cache.statistics().entries == 0)


async def test_what_replaced_another_entry_outlives_that_the_stream_is_lost(fleet: Fleet) -> None:
    """That the old one was removed is then told again."""
    one, other = fleet.join(), fleet.join()
    for number in (1, 2):
        one.store(OURS, item(number, id="x"))
        await fleet.settled()
        fleet.clock.advance(10.0)
    board = fleet.hall.boards[scope_of(OURS, "int8", DIMS).id()]
    board.restart()
    await until(lambda: bool(board.stream))
    await fleet.settled()
    assert await found(other, 1) == []
    assert await found(other, 2) == ["x"]


@pytest.mark.parametrize("payload", [b"1", b"1" * 200])
async def test_what_replaced_another_entry_outlives_the_news_of_it(
    fleet: Fleet, tmp_path: Path, payload: bytes
) -> None:
    """An instance that starts anew reads what it wrote itself; also of an entry that was too long to be shared."""
    one = fleet.join(tmp_path, value_bytes=100)
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    fleet.clock.advance(1.0)
    one.store(OURS, msgspec.structs.replace(item(2, id="x"), payload=payload))
    await fleet.settled()
    again = await fleet.restarted(one, tmp_path)
    assert again.cache.statistics().entries == 1
    assert await found(again, 2) == ["x"]


async def test_what_is_heard_of_after_it_was_deleted_stays_deleted(fleet: Fleet) -> None:
    """Who stores and who deletes write to the stream in any order: what counts is when they did it."""
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    member = members_of(one).get((OURS, DIMS))
    assert member is not None
    late = list(member._copy.contents(10))
    (values,) = [values for values in fleet.hall.kept.values() if values.kept]
    kept = dict(values.kept)
    fleet.clock.advance(1.0)
    assert await other.delete(OURS, ["x"]) == 1
    await fleet.settled()
    values.kept.update(kept)
    member.cache.federation.announce(late)
    await fleet.settled()
    newcomer = fleet.join()
    await fleet.settled()
    for instance in (one, other, newcomer):
        assert await found(instance, 1) == []
    fleet.clock.advance(1.0)
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    for instance in (one, other, newcomer):
        assert await found(instance, 1) == ["x"]


async def test_a_deletion_that_is_told_late_spares_what_was_stored_since(fleet: Fleet) -> None:
    one, other = fleet.join(), fleet.join()
    one.store(OURS, item(1, id="x"))
    await fleet.settled()
    fleet.clock.advance(1.0)
    deleted_s = fleet.clock.wall()
    fleet.clock.advance(1.0)
    one.store(OURS, item(2, id="x"))
    await fleet.settled()
    member = members_of(other).get((OURS, DIMS))
    assert member is not None
    member.cache.federation.announce(removed=[key_of("x")], when={key_of("x"): deleted_s})
    await fleet.settled()
    assert await found(one, 2) == ["x"]
    assert one.cache.statistics().entries == 1
