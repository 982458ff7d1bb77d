"""A semantic cache that instances share, as somebody who looks things up sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tandem.caching.federated_cache import CacheOptions, FederatedCache, Hit
from tandem.caching.federated_replica import IndexReplica
from tandem.clock import ManualClock
from tests.federated_board import MemoryBoard, MemoryValues, federation, key_of, replica, rows, until


class Office:
    """Instances around one board and one store of values."""

    def __init__(self) -> None:
        self.board = MemoryBoard()
        self.values = MemoryValues()
        self.clock = ManualClock()
        self.caches: list[FederatedCache[bytes]] = []
        self.copies: list[IndexReplica] = []

    def join(self, options: CacheOptions | None = None) -> FederatedCache[bytes]:
        copy = replica()
        instance = federation(self.board, copy, clock=self.clock)
        cache = FederatedCache(instance, copy, self.values, options or CacheOptions(), self.clock)
        cache.start()
        self.caches.append(cache)
        self.copies.append(copy)
        return cache

    def store(self, cache: FederatedCache[bytes], *names: int) -> None:
        for name in names:
            cache.store(key_of(name), rows(name + 1)[name], b"value %d" % name, b"note")

    async def known(self, *names: int) -> None:
        await until(lambda: all(key_of(name) in copy for copy in self.copies for name in names))

    async def gone(self, name: int) -> None:
        await until(lambda: all(key_of(name) not in copy for copy in self.copies))

    async def look(self, cache: FederatedCache[bytes], name: int) -> bytes | None:
        hit = await cache.lookup(rows(name + 1)[name], 0.95)
        return None if hit is None else hit.value


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    yield office
    for cache in office.caches:
        await cache.close()


async def test_what_one_stores_another_finds(office: Office) -> None:
    one, other = office.join(), office.join()
    assert await office.look(one, 3) is None
    office.store(one, 3)
    assert await office.look(one, 3) == b"value 3"
    await office.known(3)
    hit = await other.lookup(rows(4)[3], 0.95)
    assert isinstance(hit, Hit)
    assert (hit.key, hit.value, hit.note) == (key_of(3), b"value 3", b"note")
    assert hit.cosine > 0.999
    assert await other.lookup(-rows(4)[3], 0.95) is None


async def test_its_own_values_and_those_it_had_are_at_hand(office: Office) -> None:
    one, other = office.join(CacheOptions(at_hand=2)), office.join()
    office.store(one, 1)
    await office.known(1)
    for _ in range(3):
        assert await office.look(one, 1) == b"value 1"
        assert await office.look(other, 1) == b"value 1"
    assert office.values.asked == [key_of(1)]
    office.clock.advance(61)
    assert await office.look(one, 1) == b"value 1"
    assert office.values.asked == [key_of(1)] * 2
    office.store(one, 2, 3)
    assert await office.look(one, 1) == b"value 1"
    assert office.values.asked == [key_of(1)] * 3


async def test_what_was_removed_is_gone_everywhere(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1, 2)
    await office.known(1, 2)
    other.remove([key_of(1)])
    assert await office.look(other, 1) is None
    await office.gone(1)
    assert await office.look(one, 1) is None
    assert await office.look(one, 2) == b"value 2"
    assert office.values.kept.keys() == {key_of(2)}


async def test_what_is_discarded_goes_with_its_value_and_nobody_is_told(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1, 2, 3)
    await office.known(1, 2, 3)
    one.discard([key_of(1), key_of(2)])
    # That it is discarded as well makes a removal none the less one.
    one.remove([key_of(3)])
    one.discard([key_of(3)])
    await office.gone(3)
    await until(lambda: not office.values.kept)
    assert await office.look(one, 1) is None
    assert key_of(1) in office.copies[1]
    await until(lambda: other.statistics()["read_removed"] == 1)


async def test_what_was_removed_before_it_was_shared_is_not_shared(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1)
    one.remove([key_of(1)])
    office.store(one, 2)
    await office.known(2)
    assert await office.look(other, 1) is None
    assert office.values.kept.keys() == {key_of(2)}


async def test_what_is_stored_again_after_it_was_removed_stays(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1)
    await office.known(1)
    one.remove([key_of(1)])
    office.store(one, 1, 2)
    await office.known(1, 2)
    assert await office.look(other, 1) == b"value 1"


async def test_an_entry_without_a_value_is_a_miss_once_and_then_forgotten(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1)
    await office.known(1)
    office.values.kept.clear()
    assert await office.look(other, 1) is None
    assert key_of(1) not in office.copies[1]
    assert other.statistics()["stale"] == 1
    # And so it may be stored anew.
    office.store(other, 1)
    await until(lambda: key_of(1) in office.values.kept)


async def test_the_next_nearest_is_taken_where_the_nearest_has_no_value(office: Office) -> None:
    one, other = office.join(), office.join()
    near = rows(2)[1] + 0.01
    one.store(key_of("near"), near, b"near")
    one.store(key_of("nearest"), rows(2)[1], b"nearest")
    await until(lambda: len(office.copies[1]) == 2 and len(office.values.kept) == 2)
    assert await office.look(other, 1) == b"nearest"
    del office.values.kept[key_of("nearest")]
    office.clock.advance(61)
    assert await office.look(other, 1) == b"near"


async def test_without_its_values_it_misses_and_forgets_nothing(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1)
    await office.known(1)
    office.values.trouble = TimeoutError("no answer")
    office.store(other, 2)
    assert await office.look(other, 1) is None
    assert await office.look(other, 2) == b"value 2"
    assert other.statistics()["errors"] >= 1
    office.values.trouble = None
    assert await office.look(other, 1) == b"value 1"


async def test_what_others_have_is_not_stored_again(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1)
    await office.known(1)
    office.store(other, 1)
    assert other.statistics()["known"] == 1
    assert other.statistics()["unshared"] == 0


async def test_closing_shares_what_waits(office: Office) -> None:
    one = office.join()
    office.store(one, 1)
    await one.close()
    await one.close()
    assert len(office.board.stream) == len(office.values.kept) == 1


@pytest.mark.parametrize(("key", "note"), [(b"short", b""), (key_of(1), bytes(5000))])
async def test_what_does_not_fit_is_refused_and_not_kept(office: Office, key: bytes, note: bytes) -> None:
    one = office.join()
    with pytest.raises(ValueError, match="bytes, not"):
        one.store(key, rows(1)[0], b"value", note)
    with pytest.raises(ValueError, match="direction"):
        one.store(key_of(1), rows(1)[0] * 0, b"value")
    assert len(office.copies[0]) == 0
    with pytest.raises(ValueError, match="bytes, not"):
        one.remove([b"short"])


async def test_a_request_that_is_cancelled_leaves_all_as_it_was(office: Office) -> None:
    one, other = office.join(), office.join()
    office.store(one, 1)
    await office.known(1)
    asking = asyncio.create_task(office.look(other, 1))
    await until(lambda: bool(office.values.asked))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await office.look(other, 1) == b"value 1"
