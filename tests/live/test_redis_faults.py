"""A Redis that stops, dies, comes back, refuses, or holds what is not ours: never an error, never a wrong row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from tests.entry_rows import MODEL, entries, keys, right
from tests.event_loops import EVENT_LOOPS
from tests.live.redis_stores import PATIENCE_S, fill, filled, opened, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.live

NAME = b"td:" + MODEL


@pytest.fixture(params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
def folder() -> Iterator[Path]:
    # Shorter than tmp_path: a socket's path has 108 bytes at most.
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def server(folder: Path) -> Iterator[RedisServer]:
    with RedisServer(folder) as server:
        yield server


async def test_a_redis_that_stops_is_given_up_and_found_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tandem.caching")
    async with opened(server.url, timeout_s=0.1) as store:
        known = await fill(store)
        assert all(right(known, await store.get(known)))
        server.suspend()
        assert await store.get(known) == [None] * 20
        assert store.state().startswith("breaker open: did not answer within 100 ms")
        asked = store.statistics()
        for _ in range(100):
            assert await store.get(known) == [None] * 20
            await store.put(known, entries(known))
        counts = store.statistics()
        assert counts["skipped"] - asked["skipped"] == 2000
        assert counts["dropped"] - asked["dropped"] == 2000
        server.resume()
        await until(store, lambda state: state == "ok")
        assert all(right(known, await store.get(known)))
    lines = [record.getMessage() for record in caplog.records]
    assert sum("is given up for now, as it did not answer within 100 ms" in line for line in lines) == 1
    assert sum("the Redis cache is back after" in line for line in lines) == 1
    assert len(lines) == 2, "no storm"


async def test_of_many_who_ask_three_wait_out_the_deadline(server: RedisServer) -> None:
    async with opened(server.url, timeout_s=6.0) as store:
        known = await fill(store, 64)
        await store.get(known)
        server.suspend()
        tasks = [asyncio.create_task(store.get([key])) for key in known]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert store.statistics()["late"] == 61
        server.resume()
        found = await asyncio.gather(*tasks)
        assert found.count([None]) == 61
        assert store.state() == "ok"


async def test_answers_of_a_slow_redis_that_come_too_late_are_nobody_elses(folder: Path) -> None:
    with RedisServer(folder, ["--enable-debug-command", "yes"]) as server, Redis.from_url(server.url) as other:
        async with opened(server.url, timeout_s=0.1) as store:
            known = await fill(store, 40)
            for _ in range(3):
                asleep = asyncio.create_task(asyncio.to_thread(other.execute_command, "DEBUG", "SLEEP", "0.3"))
                while not asleep.done():
                    some = [store.get([key]) for key in known[:20]]
                    for key, found in zip(known, await asyncio.gather(*some), strict=False):
                        right([key], found)
                await until(store, lambda state: state == "ok")
                assert all(right(known[20:], await store.get(known[20:])))
            counts = store.statistics()
            assert counts["breaker_opened"] >= 1, "it was too slow"
            assert counts["rejected"] == 0, "no answer came to another question than its own"


async def test_kills_and_restarts_under_load_are_misses(server: RedisServer) -> None:
    async with opened(server.url) as store:
        known = await fill(store, 200)
        ended = False

        async def ask(number: int) -> int:
            hits = 0
            while not ended:
                some = known[number * 20 : number * 20 + 20]
                found = right(some, await store.get(some))
                hits += sum(found)
                if not all(found):
                    await store.put(some, entries(some))
                await asyncio.sleep(0)
            return hits

        load = [asyncio.create_task(ask(number)) for number in range(10)]
        for _ in range(3):
            server.kill()
            await until(store, lambda state: "can not be reached" in state)
            server.start()
            await until(store, lambda state: state == "ok")
            await asyncio.wait_for(filled(store, known), PATIENCE_S)
        ended = True
        assert all(await asyncio.gather(*load))
        assert store.statistics()["breaker_opened"] >= 3


async def test_a_redis_that_is_down_at_the_start_may_come_up(folder: Path) -> None:
    server = RedisServer(folder)
    async with opened(server.url) as store:
        assert await store.get(keys(2)) == [None, None]
        assert "can not be reached" in store.state()
        with server:
            await until(store, lambda state: state == "ok")
            known = await fill(store)
            assert all(right(known, await store.get(known)))


async def test_what_others_keep_there_is_never_served(server: RedisServer) -> None:
    async with opened(server.url) as store:
        known = await fill(store, 6)
        with Redis.from_url(server.url) as other:
            other.delete(NAME + known[0])
            other.rpush(NAME + known[0], "a list")
            other.set(NAME + known[1], "someone else's text, under a name of ours")
            other.set(NAME + known[2], b"")
            other.copy(NAME + known[4], NAME + known[3], replace=True)
            other.setrange(NAME + known[4], 50, b"\x00\x01\x02")
            other.set("their own", "value")
            assert right(known, await store.get(known)) == [False] * 5 + [True]
            counts = store.statistics()
            assert (counts["rejected_format"], counts["rejected_damage"], counts["rejected"]) == (2, 2, 4)
            await fill(store, 6)
            assert all(right(known, await store.get(known)))
            await store.clear()
            assert other.keys() == [b"their own"]


async def test_a_flushed_database_is_a_miss(server: RedisServer) -> None:
    async with opened(server.url) as store:
        known = await fill(store)
        with Redis.from_url(server.url) as other:
            other.flushall()
        assert not any(await store.get(known))
        assert store.state() == "ok"


async def test_rows_end_one_by_one_and_none_too_late(server: RedisServer) -> None:
    async with opened(server.url, ttl_s=1000.0) as store:
        known = await fill(store, 50)
        with Redis.from_url(server.url) as other:
            left = [other.pttl(NAME + key) / 1000 for key in known]
    assert 800 < min(left) <= max(left) <= 1000
    assert max(left) - min(left) > 30


async def test_without_a_time_to_live_rows_stay(server: RedisServer) -> None:
    async with opened(server.url, ttl_s=None) as store:
        known = await fill(store, 1)
        with Redis.from_url(server.url) as other:
            assert other.ttl(NAME + known[0]) == -1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--maxmemory", "1", "--maxmemory-policy", "noeviction"], "is out of memory: raise its maxmemory"),
        (["--replicaof", "127.0.0.1", "1"], "is a replica, which can not be written to"),
        (["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-set"], "answers"),
    ],
    ids=["full", "replica", "no right to write"],
)
async def test_a_redis_that_can_not_be_written_to_is_read(folder: Path, options: list[str], words: str) -> None:
    with RedisServer(folder, options) as server:
        async with opened(server.url) as store:
            known = await fill(store, 3)
            assert store.statistics()["refused"] == 3
            assert store.state().startswith(f"reads only: {words}")
            assert await store.get(known) == [None] * 3
            assert store.statistics()["skipped"] == 0, "it was asked"
            await store.clear()


async def test_a_login_that_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tandem.caching")
    with RedisServer(folder, ["--requirepass", "open-sesame"]) as server:
        for login in ("", ":close-sesame@", "ali:open-sesame@"):
            async with opened(server.url.replace("//", f"//{login}")) as store:
                assert await store.get(keys(1)) == [None]
                assert store.state().startswith("breaker open: refuses our login"), store.state()
                assert "sesame" not in store.state()
        async with opened(server.url.replace("//", "//:open-sesame@")) as store:
            known = await fill(store)
            assert all(right(known, await store.get(known)))
    assert "sesame" not in caplog.text


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"*1\r\n$-1\r\n" * 50, b"+OK\r\n", b"$99"]
)
async def test_something_that_is_no_redis(folder: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()
        writer.close()

    path = folder / "other.sock"
    server = await asyncio.start_unix_server(serve, path)
    async with opened(f"unix://{path}") as store:
        assert await store.get(keys(2)) == [None, None]
        assert store.state().startswith("breaker open: ")
        await store.put(keys(2), entries(keys(2)))
        await store.clear()
    server.close()
    await server.wait_closed()
