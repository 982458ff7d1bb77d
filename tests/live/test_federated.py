"""Federated instances around a real Redis, which is stopped, killed, emptied, and written to by others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis

from tandem.caching.base import Entry
from tandem.caching.breaker import BreakerOptions
from tandem.caching.federated import Federation, FederationOptions
from tandem.caching.federated_board import Board, BoardOptions, RedisBoard, connect
from tandem.caching.federated_cache import CacheOptions, FederatedCache
from tandem.caching.federated_snapshot import SnapshotOptions
from tandem.caching.federated_values import RedisValues, StoreValues, ValuesOptions
from tandem.caching.federated_wire import START, Scope, Wire
from tandem.caching.record import Records
from tandem.caching.redis import RedisOptions, redis_store
from tandem.clock import SystemClock
from tandem.errors import ConfigError
from tandem.quantization import ROW_CODECS
from tandem.types import Tier
from tests.conftest import REPOSITORY
from tests.federated_board import DIMS, SCOPE, MemoryBoard, key_of, replica, rows, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.live

QUICK = BreakerOptions(first_s=0.02, most_s=0.1)
OPTIONS = FederationOptions(wait_s=0.1, breaker=QUICK, snapshots=SnapshotOptions(every=50, look_s=0.05, lease_s=0.2))
# Long deadlines: a busy machine is not what is tested here.
BOARD = BoardOptions(deadline_s=1.0)
VALUES = ValuesOptions(deadline_s=2.0, put_deadline_s=2.0, breaker=QUICK)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    # Not in tmp_path: a socket's path must be short.
    with TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        yield server


class Instance:
    """One instance with a client of its own."""

    def __init__(self, url: str, scope: Scope = SCOPE, options: FederationOptions = OPTIONS) -> None:
        clock = SystemClock()
        self.client = connect(url)
        self.copy = replica()
        self.federation = Federation(RedisBoard(self.client, scope.id(), BOARD), scope, self.copy, options, clock)
        values = RedisValues(self.client, self.federation.wire, VALUES, clock)
        self.cache: FederatedCache[bytes] = FederatedCache(self.federation, self.copy, values, CacheOptions(), clock)
        self.cache.start()

    def store(self, *names: int) -> None:
        for name in names:
            self.cache.store(key_of(name), rows(name + 1)[name], b"value %d" % name)

    def knows(self, *names: int) -> bool:
        return all(key_of(name) in self.copy for name in names)

    async def look(self, name: int) -> bytes | None:
        hit = await self.cache.lookup(rows(name + 1)[name], 0.999)
        return None if hit is None else hit.value

    async def close(self) -> None:
        await self.cache.close()
        await self.client.aclose()


class Site:
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.instances: list[Instance] = []

    def join(self, scope: Scope = SCOPE, options: FederationOptions = OPTIONS) -> Instance:
        self.instances.append(Instance(self.server.url, scope, options))
        return self.instances[-1]

    async def close(self) -> None:
        for instance in self.instances:
            await instance.close()


@pytest.fixture
async def site(server: RedisServer) -> AsyncIterator[Site]:
    site = Site(server)
    yield site
    await site.close()


@pytest.fixture(params=["memory", 2, 3])
async def board(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[Board]:
    """Every board there is, Redis in both versions of its protocol; they keep about 300 entries."""
    if request.param == "memory":
        yield MemoryBoard(300)
        return
    async with Redis.from_url(server.url, protocol=request.param) as client:
        yield RedisBoard(client, SCOPE.id(), BoardOptions(stream_entries=300))


async def test_a_board_keeps_what_is_written_in_its_order(board: Board) -> None:
    assert await board.read(START, 10, 0.001) == []
    assert (await board.view(START)).last == START
    entries = [b"%d" % i for i in range(20)]
    await board.append(entries[:5])
    await board.append(entries[5:])
    read = await board.read(START, 100, 0.0)
    assert [data for _, data in read] == entries
    places = [place for place, _ in read]
    assert places == sorted(set(places))
    assert [data for _, data in await board.read(places[3], 4, 0.0)] == entries[4:8]
    view = await board.view(places[7])
    assert (view.first, view.last, view.holds) == (places[0], places[-1], True)
    assert not (await board.view((places[-1][0], places[-1][1] + 1))).holds


async def test_a_board_drops_the_oldest(board: Board) -> None:
    for start in range(0, 2000, 100):
        await board.append([b"%d" % i for i in range(start, start + 100)])
    read = await board.read(START, 5000, 0.0)
    assert 300 <= len(read) < 600
    assert read[-1][1] == b"1999"
    assert (await board.view(START)).first == read[0][0]


async def test_a_board_keeps_blobs(board: Board) -> None:
    assert await board.get(["a", "b"]) == [None, None]
    await board.put({"a": b"1", "b": b"2"}, 60.0)
    await board.put({"a": b"3"}, 60.0)
    assert await board.get(["b", "a"]) == [b"2", b"3"]
    await board.expire(["a", "never there"], 0.001)
    async with asyncio.timeout(30):
        while await board.get(["a"]) != [None]:
            assert await board.get(["b"]) == [b"2"]
    assert await board.claim("lease", b"one", 60.0)
    assert not await board.claim("lease", b"other", 60.0)
    await board.close()


async def test_a_reader_wakes_when_something_is_written(server: RedisServer) -> None:
    async with connect(server.url) as client, connect(server.url) as other:
        reading = asyncio.create_task(RedisBoard(client, SCOPE.id(), BOARD).read(START, 10, 30.0))
        await other.ping()
        await RedisBoard(other, SCOPE.id(), BOARD).append([b"news"])
        assert [data for _, data in await reading] == [b"news"]


async def test_what_one_stores_all_find(site: Site) -> None:
    one, two, three = site.join(), site.join(), site.join()
    one.store(1)
    two.store(2)
    await until(lambda: all(instance.knows(1, 2) for instance in site.instances))
    for instance in (one, two, three):
        assert await instance.look(1) == b"value 1"
        assert await instance.look(2) == b"value 2"
        assert await instance.look(3) is None
    await until(lambda: all(instance.federation.state() == "ok" for instance in site.instances))
    three.cache.remove([key_of(1)])
    await until(lambda: not any(instance.knows(1) for instance in site.instances))
    assert await one.look(1) is None


@pytest.mark.parametrize("change", [{"namespace": "b"}, {"model": "b"}, {"codec": "float16"}], ids=str)
async def test_tenants_and_models_do_not_meet(site: Site, change: dict[str, str]) -> None:
    one, same = site.join(), site.join()
    stranger = site.join(msgspec.structs.replace(SCOPE, **change))
    one.store(1)
    stranger.store(2)
    await until(lambda: same.knows(1))
    await stranger.federation.caught_up()
    assert await stranger.look(1) is None
    assert await one.look(2) is None
    assert stranger.federation.statistics()["entries"] == 1


async def test_a_newcomer_knows_what_the_stream_has_forgotten(site: Site) -> None:
    one = site.join()
    one.store(*range(120))
    await until(lambda: one.federation.statistics().get("snapshot_written", 0) >= 1)
    await until(lambda: one.federation.statistics().get("read_own", 0) == 120)
    client = one.client
    (stream,) = [key async for key in client.scan_iter("*:stream")]
    await one.federation.keep()
    await client.xtrim(stream, maxlen=0, approximate=False)
    new = site.join()
    await new.federation.caught_up()
    assert new.federation.statistics()["read_snapshots_loaded"] == 1
    assert len(new.copy) >= 50
    one.store(121)
    await until(lambda: new.knows(121))


async def test_redis_that_stops_costs_misses_and_comes_back(site: Site) -> None:
    one, other = site.join(), site.join()
    one.store(1)
    await until(lambda: other.knows(1))
    site.server.suspend()
    one.store(2)
    assert await other.look(1) is None
    assert await one.look(2) == b"value 2"
    await until(lambda: "no answer" in other.federation.state())
    asked = other.cache.statistics()["errors"]
    assert await other.look(1) is None
    assert other.cache.statistics()["errors"] > asked
    site.server.resume()
    await until(lambda: other.knows(2))
    await _served(other, 1)
    await _served(other, 2)
    await until(lambda: one.federation.state() == other.federation.state() == "ok")


async def _served(instance: Instance, name: int) -> None:
    """Ask until it is there, as users do."""
    async with asyncio.timeout(30):
        for _ in iter(int, 1):
            if await instance.look(name) == b"value %d" % name:
                return


async def test_redis_that_is_killed_and_comes_back_empty_is_filled_again(site: Site) -> None:
    one, other = site.join(), site.join()
    one.store(1)
    await until(lambda: other.knows(1))
    site.server.kill()
    one.store(2)
    assert await one.look(1) == b"value 1"
    assert await other.look(1) is None
    await until(lambda: "fails" in other.federation.state())
    site.server.start()
    await until(lambda: other.knows(2))
    await _served(other, 2)
    # Its value is gone with the old Redis: that is found out, and it can be stored anew.
    async with asyncio.timeout(30):
        while other.knows(1):
            assert await other.look(1) is None
    other.store(1)
    new = site.join()
    await until(lambda: new.knows(1, 2))
    await _served(new, 1)


async def test_what_strangers_write_is_dropped(site: Site) -> None:
    one, other = site.join(), site.join()
    one.store(1)
    await until(lambda: other.knows(1))
    client = one.client
    (stream,) = [key async for key in client.scan_iter("*:stream")]
    await client.xadd(stream, {"not": "ours"})
    await client.xadd(stream, {"a": b"rubbish"})
    await client.xadd(stream, {"a": np.random.default_rng(0).bytes(100_000)})
    (value,) = [key async for key in client.scan_iter("*:value:*")]
    await client.set(value, b"poison")
    one.store(2)
    await until(lambda: other.knows(2))
    assert await other.look(1) is None
    assert await other.look(2) == b"value 2"
    statistics = other.federation.statistics()
    assert (statistics["read_dropped_malformed"], statistics["read_dropped_overlong"]) == (2, 1)


async def test_a_key_of_somebody_elses_in_our_place_is_trouble_and_no_more(site: Site) -> None:
    client = connect(site.server.url)
    name = f"tandem:fed:{{{SCOPE.id().hex()}}}:stream"
    await client.set(name, b"somebody else's")
    one, other = site.join(), site.join()
    one.store(1)
    assert await one.look(1) == b"value 1"
    await until(lambda: "WRONGTYPE" in other.federation.state())
    await client.delete(name)
    await until(lambda: other.knows(1))
    await client.aclose()


async def test_who_has_the_secret_believes_nobody_else(site: Site) -> None:
    with_it = msgspec.structs.replace(OPTIONS, secret=b"a secret")
    one, same, other = site.join(options=with_it), site.join(options=with_it), site.join()
    other.store(1)
    one.store(2)
    await until(lambda: same.knows(2))
    await until(lambda: other.federation.statistics().get("read_dropped_corrupted", 0) >= 1)
    await until(lambda: one.federation.statistics().get("read_dropped_corrupted", 0) >= 1)
    assert not one.knows(1)
    assert not other.knows(2)


CHILD = """
import asyncio, sys
from tests.live.test_federated import Instance

async def main():
    instance = Instance(sys.argv[1])
    instance.store(1)
    for name in range(2, 5000):
        instance.store(name)
        await asyncio.sleep(0)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_an_instance_that_is_killed_costs_nothing_but_what_it_had_not_said(site: Site) -> None:
    one = site.join()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, site.server.url, cwd=REPOSITORY)
    await until(lambda: one.knows(1, 2, 3))
    child.kill()
    await child.wait()
    one.store(200_000)
    other = site.join()
    await until(lambda: other.knows(1, 2, 3, 200_000))
    assert await other.look(2) == b"value 2"
    await until(lambda: one.federation.state() == "ok")


async def test_values_are_checked(server: RedisServer) -> None:
    async with connect(server.url) as client:
        wire = Wire(SCOPE)
        values = RedisValues(client, wire, msgspec.structs.replace(VALUES, value_bytes=10), SystemClock())
        keys = [key_of(i) for i in range(4)]
        await values.put(keys, [b"a", b"b", b"c", b"eleven bytes"])
        assert await values.get([]) == []
        assert await values.get(keys) == [b"a", b"b", b"c", None]
        stored = sorted([key async for key in client.scan_iter("*:value:*")])
        assert len(stored) == 3
        (one, other) = [bytes(data) for data in await client.mget(stored[:2]) if isinstance(data, bytes)]
        await client.mset({stored[0]: other, stored[1]: one[:-1]})
        assert sum(value is not None for value in await values.get(keys)) == 1
        assert values.counters["rejected_foreign"] == values.counters["rejected_corrupted"] == 1
        await values.delete(keys)
        assert await values.get(keys) == [None] * 4


async def test_rows_come_from_the_second_level(server: RedisServer) -> None:
    clock, row = SystemClock(), rows(1)[0]
    records = Records(b"12345678", DIMS, ROW_CODECS.get("float32")())
    store = redis_store(RedisOptions(url=server.url, timeout_s=1.0), records, clock)
    async with connect(server.url) as client:
        caches: list[FederatedCache[Entry]] = []
        for _ in range(2):
            copy = replica()
            instance = Federation(RedisBoard(client, SCOPE.id(), BOARD), SCOPE, copy, OPTIONS, clock)
            caches.append(FederatedCache(instance, copy, StoreValues(store), CacheOptions(), clock))
            caches[-1].start()
        caches[0].store(key_of(1), row, Entry(row=row, tokens=7, tier=Tier.FP32))
        await until(lambda: caches[1].statistics()["entries"] == 1)
        hit = await caches[1].lookup(row, 0.99)
        assert hit is not None
        assert hit.value.tokens == 7
        np.testing.assert_array_equal(hit.value.row, row)
        caches[0].store(key_of(2), -row, Entry(row=-row, tokens=8, tier=Tier.FP32))
        await until(lambda: caches[1].statistics()["entries"] == 2)
        server.suspend()
        assert await caches[1].lookup(-row, 0.99) is None
        assert caches[1].statistics()["entries"] == 2, "that it does not answer does not mean that it has none"
        server.resume()
        for cache in caches:
            await cache.close()
    await store.close()


def test_a_url_that_is_none_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="Redis URL"):
        connect("ftp://nowhere")
