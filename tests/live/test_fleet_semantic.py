"""Two servers that share their semantic caches through a real Redis, which is killed and comes back empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from tandem.caches import build_semantic
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.server.app import App
from tandem.telemetry import Metrics
from tests.engines import Device, make_engine, model_info, words
from tests.http.conftest import OPTIONS
from tests.redis_server import RedisServer

pytestmark = pytest.mark.live

PATH = "/v1/semantic-cache"
KEYS = msgspec.structs.replace(OPTIONS, api_keys=("a", "b", "admin"), admin_keys=("admin",))


class Server:
    """One instance: a started app with a semantic cache of its own, and a client of it."""

    def __init__(self, settings: Settings, model: str = "words") -> None:
        clock = SystemClock()
        info = msgspec.structs.replace(model_info(normalize=True), fingerprint=model)
        self.app = App(make_engine(Device(), model=info), KEYS, Metrics(), clock, build_semantic(settings, clock))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://tandem.test")

    async def ask(self, method: str, path: str, body: object = None, key: str = "a") -> Any:
        """The reply, which is never an error."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json", "x-api-key": key}
        # What is asked without a socket may be answered without a turn for what runs in the background.
        await asyncio.sleep(0)
        reply = await self.client.request(method, path, content=content, headers=headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def store(self, text: str, payload: object, **fields: Any) -> str:
        reply = await self.ask("POST", f"{PATH}/store", {"text": text, "payload": payload, **fields})
        return str(reply["id"])

    async def look(self, text: str, key: str = "a", **fields: Any) -> list[dict[str, Any]]:
        hits: list[dict[str, Any]] = (await self.ask("POST", f"{PATH}/lookup", {"text": text, **fields}, key))["hits"]
        return hits

    async def sees(self, text: str, payload: object, **fields: Any) -> dict[str, Any]:
        """Ask until that is found, as users do; None stands for nothing."""
        async with asyncio.timeout(30):
            for _ in iter(int, 1):
                hits = await self.look(text, **fields)
                if [hit["payload"] for hit in hits] == ([] if payload is None else [payload]):
                    return hits[0] if hits else {}
        raise AssertionError

    async def federation(self) -> dict[str, Any]:
        report: dict[str, Any] = (await self.ask("GET", "/v1/cache/stats", key="admin"))["federation"]
        return report

    async def close(self) -> None:
        await self.client.aclose()
        await self.app.close()


class Site:
    def __init__(self, redis: RedisServer) -> None:
        self.redis = redis
        self.servers: list[Server] = []

    async def join(self, model: str = "words", **settings: Any) -> Server:
        server = Server(Settings(semantic_cache_redis=self.redis.url, **settings), model)
        await server.app.start()
        self.servers.append(server)
        return server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    # Not in tmp_path: a socket's path must be short.
    with TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
        yield redis


@pytest.fixture
async def site(redis: RedisServer) -> AsyncIterator[Site]:
    site = Site(redis)
    yield site
    for server in site.servers:
        await server.close()


async def test_what_is_stored_in_one_is_found_by_the_other_until_it_is_deleted(site: Site) -> None:
    one, other = await site.join(), await site.join()
    payload = {"answer": "18 degrees", "sources": [1, None]}
    entry = await one.store(words(1, 2), payload, id="sea")
    hit = await other.sees(words(1, 2), payload)
    assert (entry, hit["id"], hit["text"]) == ("sea", "sea", words(1, 2))
    assert hit["similarity"] == pytest.approx(1.0, abs=0.01)
    assert 0 <= hit["age_s"] < 60
    assert await other.look(words(40, 41), threshold=0.999) == []
    # By the one that has only heard of it: it is gone from the one that stored it, too.
    assert await other.ask("DELETE", f"{PATH}/default", {"ids": ["sea"]}) == {"deleted": 1}
    await one.sees(words(1, 2), None)
    assert await other.look(words(1, 2)) == []


async def test_an_emptied_namespace_is_empty_in_the_other(site: Site) -> None:
    one, other = await site.join(), await site.join()
    for number in (1, 2):
        await one.store(words(number), number)
        await other.sees(words(number), number)
    await other.store(words(3), 3)
    await one.sees(words(3), 3)
    assert await one.ask("DELETE", f"{PATH}/default") == {"deleted": 3}
    for number in (1, 2, 3):
        await other.sees(words(number), None)
        assert await one.look(words(number)) == []
    async with Redis.from_url(site.redis.url) as client:
        async with asyncio.timeout(30):
            while [key async for key in client.scan_iter("*:value:*")]:
                pass
    await one.store(words(4), 4)
    await other.sees(words(4), 4)


async def test_who_joins_later_finds_what_was_stored_before(site: Site) -> None:
    one = await site.join()
    for number in range(40):
        await one.store(words(number), number)
    async with asyncio.timeout(30):
        while (await one.federation())["counters"].get("read_own", 0) < 40:
            pass
    late = await site.join()
    await late.sees(words(39), 39)
    await late.sees(words(0), 0)


async def test_tenants_and_models_do_not_meet(site: Site) -> None:
    one, same, stranger = await site.join(), await site.join(), await site.join(model="another")
    vector = [1.0, 2.0, 3.0]
    await one.store(words(1), 1)
    await one.store("theirs", 2, vector=vector, model="theirs")
    await same.sees(words(1), 1)
    await same.sees("", 2, vector=vector, model="theirs")
    await stranger.sees("", 2, vector=vector, model="theirs")
    await stranger.store(words(5), 5)
    for _ in range(20):
        assert await stranger.look(words(1)) == []
        assert await same.look(words(1), key="b") == []
        assert await same.look(words(1), namespace="else") == []
        assert await same.look("", vector=vector, model="others") == []
        assert await one.look(words(5), threshold=0.999) == []
    assert await one.ask("DELETE", f"{PATH}/default", None, "b") == {"deleted": 0}
    assert len(await same.look(words(1))) == 1


async def test_a_redis_that_is_killed_costs_misses(site: Site) -> None:
    one, other = await site.join(), await site.join()
    await one.store(words(1), 1)
    await other.store(words(2), 2)
    await other.sees(words(1), 1)
    await one.sees(words(2), 2)
    site.redis.kill()
    await one.store(words(3), 3)
    for _ in range(20):
        assert [hit["payload"] for hit in await one.look(words(1))] == [1]
        assert [hit["payload"] for hit in await other.look(words(2))] == [2]
        assert await other.look(words(3), threshold=0.999) == []
    async with asyncio.timeout(30):
        while "fails" not in (await other.federation())["state"]:
            pass
    late = await site.join()
    await late.store(words(4), 4)
    assert [hit["payload"] for hit in await late.look(words(4))] == [4]
    assert await late.ask("DELETE", f"{PATH}/default", {"ids": ["x"]}) == {"deleted": 0}
    site.redis.start()
    await other.sees(words(3), 3)
    await other.sees(words(4), 4)
    async with asyncio.timeout(30):
        while (await other.federation())["state"] != "ok":
            pass


async def test_a_redis_that_stands_still_costs_misses_and_holds_up_no_end(site: Site) -> None:
    one, other = await site.join(), await site.join()
    await one.store(words(1), 1)
    async with asyncio.timeout(30):
        while (await other.federation())["counters"].get("entries", 0) < 1:
            await other.look(words(1), threshold=1.0)
    site.redis.suspend()
    for number in range(10, 20):
        await one.store(words(number), number)
        assert [hit["payload"] for hit in await one.look(words(number))] == [number]
        await other.look(words(1))
    async with asyncio.timeout(30):
        while "no answer" not in (await other.federation())["state"]:
            pass
    site.servers.remove(one)
    async with asyncio.timeout(30):
        await one.close()
    site.redis.resume()
    await other.sees(words(1), 1)


async def test_who_has_the_secret_believes_nobody_else(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("nobody knows\n")
    one = await site.join(semantic_cache_secret_file=str(secret))
    same = await site.join(semantic_cache_secret_file=str(secret))
    stranger = await site.join()
    await stranger.store(words(2), 2)
    await one.store(words(1), 1)
    await same.sees(words(1), 1)
    async with asyncio.timeout(30):
        while (await same.federation())["counters"].get("read_dropped_corrupted", 0) < 1:
            pass
    assert await same.look(words(2), threshold=0.999) == []
    assert await stranger.look(words(1), threshold=0.999) == []


async def test_a_promise_is_kept_with_what_is_here(site: Site) -> None:
    one, other = await site.join(), await site.join()
    await one.store(words(1), 1)
    await other.sees(words(1), 1)
    found = await other.ask("POST", f"{PATH}/lookup", {"text": words(1), "max_error": 0.05})
    assert (found["hits"], found["candidate"]) == ([], None)
