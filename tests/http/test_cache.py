"""The caches over HTTP: where a row came from, whose it is, and the routes that show and clear them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest

from tandem.caches import build_recall, build_semantic
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.server.app import App
from tandem.server.options import ServerOptions
from tandem.telemetry import Metrics
from tests.engines import Device, make_engine, model_info, words
from tests.http.conftest import OPTIONS

TEXT = words(1, 2, 3)


class Cached:
    """A started app over a real engine, a device that counts, and both caches."""

    def __init__(self, settings: Settings, **changes: object) -> None:
        clock = SystemClock()
        self.device = Device()
        self.engine: Engine = make_engine(self.device, model=model_info(normalize=True))
        self.engine.recall = build_recall(settings, self.engine.model, self.engine.intake, self.engine.loop, clock)
        options: ServerOptions = msgspec.structs.replace(OPTIONS, **changes)
        semantic = build_semantic(settings, clock)
        self.app = App(self.engine, options, Metrics(), clock, semantic)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://tandem.test")

    async def ask(self, method: str, path: str, body: object = None, key: str = "") -> httpx.Response:
        headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
        content = None if body is None else msgspec.json.encode(body)
        return await self.client.request(method, path, content=content, headers=headers)

    async def embed(self, texts: object, key: str = "", **fields: object) -> httpx.Response:
        reply = await self.ask("POST", "/v1/embeddings", {"input": texts, **fields}, key)
        assert reply.status_code == 200, reply.text
        return reply


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    made: list[Cached] = []

    async def make(settings: Settings | None = None, **changes: object) -> Cached:
        server = Cached(settings or Settings(), **changes)
        await server.app.start()
        made.append(server)
        return server

    yield make
    for server in made:
        await server.client.aclose()
        await server.app.close()


@pytest.fixture
async def server(start: Callable[..., Any]) -> Cached:
    found: Cached = await start()
    return found


async def test_a_reply_says_where_its_rows_came_from(server: Cached) -> None:
    first, again = await server.embed(TEXT), await server.embed(TEXT)
    assert first.headers["x-tandem-cache"] == "miss"
    assert again.headers["x-tandem-cache"] == "l1"
    assert first.json() == again.json()
    assert (await server.embed([TEXT, words(9)])).headers["x-tandem-cache"] == "miss"
    assert "x-tandem-similarity" not in again.headers


async def test_a_request_may_pass_the_caches_by(server: Cached) -> None:
    await server.embed(TEXT)
    reply = await server.embed(TEXT, cache="off")
    assert "x-tandem-cache" not in reply.headers
    assert len(server.device.computed) == 2
    wrong = await server.ask("POST", "/v1/embeddings", {"input": TEXT, "cache": "sometimes"})
    assert wrong.status_code == 400
    assert "cache" in wrong.json()["error"]["message"]


async def test_every_api_shares_the_rows(server: Cached) -> None:
    await server.embed(TEXT)
    tei = await server.ask("POST", "/embed", {"inputs": TEXT})
    assert tei.headers["x-tandem-cache"] == "l1"
    cohere = await server.ask("POST", "/v2/embed", {"model": "words", "texts": [TEXT], "input_type": "classification"})
    assert cohere.headers["x-tandem-cache"] == "l1"
    assert len(server.device.computed) == 1


async def test_one_keys_rows_do_not_answer_another(start: Callable[..., Any]) -> None:
    server = await start(api_keys=("a", "b"))
    await server.embed(TEXT, key="a")
    assert (await server.embed(TEXT, key="b")).headers["x-tandem-cache"] == "miss"
    assert (await server.embed(TEXT, key="a")).headers["x-tandem-cache"] == "l1"
    shared = await start(api_keys=("a", "b"), cache_tenants="shared")
    await shared.embed(TEXT, key="a")
    assert (await shared.embed(TEXT, key="b")).headers["x-tandem-cache"] == "l1"


async def test_stats_count_texts_and_tokens(server: Cached) -> None:
    await server.embed([TEXT, words(5)])
    await server.embed(TEXT)
    rows = (await server.ask("GET", "/v1/cache/stats")).json()["rows"]
    assert rows["tiers"]["l1"]["texts"] == 1
    assert rows["tiers"]["l1"]["tokens"] == 5
    assert rows["tiers"]["miss"]["tokens"] == 8
    assert rows["text_hit_rate"] == pytest.approx(1 / 3)
    assert rows["token_hit_rate"] == pytest.approx(5 / 13)
    assert rows["memory"]["entries"] == 2
    metrics = (await server.ask("GET", "/metrics")).text
    assert 'tandem_cache_texts_total{source="l1"} 1.0' in metrics
    assert 'tandem_cache_tokens_total{source="miss"} 8.0' in metrics
    assert 'tandem_cache_up{level="l1"} 1.0' in metrics


async def test_what_was_cleared_is_computed_again(server: Cached) -> None:
    await server.embed(TEXT)
    assert (await server.ask("POST", "/v1/cache/clear")).json() == {"cleared": "rows of acme/words"}
    assert (await server.embed(TEXT)).headers["x-tandem-cache"] == "miss"


async def test_with_several_keys_only_an_admins_clears_what_all_share(start: Callable[..., Any]) -> None:
    server = await start(api_keys=("a", "b"))
    await server.embed(TEXT, key="a")
    refused = await server.ask("POST", "/v1/cache/clear", None, "b")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "forbidden"
    assert "admin_key_file" in refused.json()["error"]["message"]
    assert (await server.embed(TEXT, key="a")).headers["x-tandem-cache"] == "l1"
    assert (await server.ask("POST", "/v1/cache/clear", None, "unknown")).status_code == 401

    kept = await start(api_keys=("a", "b", "root"), admin_keys=("root",))
    await kept.embed(TEXT, key="a")
    assert (await kept.ask("POST", "/v1/cache/clear", None, "a")).status_code == 403
    assert (await kept.ask("POST", "/v1/cache/clear", None, "root")).status_code == 200
    assert (await kept.embed(TEXT, key="a")).headers["x-tandem-cache"] == "miss"


async def test_who_is_alone_clears_unless_there_are_keys_for_that(start: Callable[..., Any]) -> None:
    alone = await start(api_keys=("a",))
    assert (await alone.ask("POST", "/v1/cache/clear", None, "a")).status_code == 200
    opened = await start(admin_keys=("root",))
    await opened.embed(TEXT)
    assert (await opened.ask("POST", "/v1/cache/clear")).status_code == 403
    assert (await opened.ask("POST", "/v1/cache/clear", None, "root")).status_code == 200


async def test_what_is_wrong_with_a_store_is_told_to_who_runs_it(start: Callable[..., Any]) -> None:
    server = await start(
        settings=Settings(cache_l2="redis://127.0.0.1:1/0"), api_keys=("a", "root"), admin_keys=("root",)
    )
    await server.embed(TEXT, key="a")
    told = [(await server.ask("GET", "/v1/cache/stats", None, key)).json()["rows"]["state"] for key in ("a", "root")]
    assert told[0] == "not ok"
    assert "can not be reached" in told[1]
    failed = await server.ask("POST", "/v1/cache/clear", None, "root")
    assert failed.status_code == 503
    assert "memory is cleared; the second level is not, as it can not be reached" in failed.json()["error"]["message"]
    assert (await server.ask("GET", "/v1/cache/stats", None, "a")).json()["rows"]["memory"]["entries"] == 0


async def test_a_payload_is_found_by_a_text_or_a_vector(server: Cached) -> None:
    payload = {"answer": "18 degrees", "sources": [1, None, {"x": "\u00e9"}]}
    stored = await server.ask("POST", "/v1/semantic-cache/store", {"text": TEXT, "payload": payload})
    entry = stored.json()["id"]
    found = (await server.ask("POST", "/v1/semantic-cache/lookup", {"text": TEXT})).json()
    (hit,) = found["hits"]
    assert (hit["id"], hit["payload"], hit["text"]) == (entry, payload, TEXT)
    assert hit["similarity"] == pytest.approx(1, abs=1e-4)
    vector = (await server.embed(TEXT)).json()["data"][0]["embedding"]
    by_vector = (await server.ask("POST", "/v1/semantic-cache/lookup", {"vector": vector})).json()
    assert by_vector["hits"][0]["id"] == entry
    other = (await server.ask("POST", "/v1/semantic-cache/lookup", {"text": TEXT, "namespace": "other"})).json()
    assert other["hits"] == []


async def test_what_one_tenant_stored_no_other_finds_or_deletes(start: Callable[..., Any]) -> None:
    server = await start(api_keys=("a", "b"))
    body = {"text": TEXT, "payload": 1, "id": "mine"}
    assert (await server.ask("POST", "/v1/semantic-cache/store", body, "a")).status_code == 200
    assert (await server.ask("POST", "/v1/semantic-cache/lookup", {"text": TEXT}, "b")).json()["hits"] == []
    assert (await server.ask("DELETE", "/v1/semantic-cache/default", None, "b")).json() == {"deleted": 0}
    assert len((await server.ask("POST", "/v1/semantic-cache/lookup", {"text": TEXT}, "a")).json()["hits"]) == 1
    assert "default" in str((await server.ask("GET", "/v1/cache/stats", None, "a")).json()["namespaces"])
    assert (await server.ask("GET", "/v1/cache/stats", None, "b")).json()["namespaces"] == {}


async def test_rows_may_be_shared_where_payloads_never_are(start: Callable[..., Any]) -> None:
    server = await start(api_keys=("a", "b"), cache_tenants="shared")
    await server.ask("POST", "/v1/semantic-cache/store", {"text": TEXT, "payload": "secret"}, "a")
    assert (await server.embed(TEXT, key="b")).headers["x-tandem-cache"] == "l1"
    assert (await server.ask("POST", "/v1/semantic-cache/lookup", {"text": TEXT}, "b")).json()["hits"] == []
    assert (await server.ask("DELETE", "/v1/semantic-cache/default", None, "b")).json() == {"deleted": 0}


async def test_a_payload_that_is_no_text_is_refused(server: Cached) -> None:
    body = b'{"text": "w1", "payload": "\xff"}'
    headers = {"content-type": "application/json"}
    reply = await server.client.post("/v1/semantic-cache/store", content=body, headers=headers)
    assert reply.status_code == 400
    assert "UTF-8" in reply.text
    named = await server.ask("POST", "/v1/semantic-cache/store", {"text": TEXT, "payload": 1, "namespace": "lookup"})
    assert named.status_code == 400


async def test_a_reply_is_bounded(server: Cached) -> None:
    for number in range(12):
        payload = {"text": f"{TEXT} w{number}", "payload": "x" * 900_000, "id": str(number)}
        assert (await server.ask("POST", "/v1/semantic-cache/store", payload)).status_code == 200
    found = await server.ask("POST", "/v1/semantic-cache/lookup", {"text": TEXT, "threshold": -1, "k": 12})
    assert 0 < len(found.json()["hits"]) < 12
    assert len(found.content) < 9 << 20


async def test_entries_and_namespaces_are_deleted(server: Cached) -> None:
    for name in ("x", "y"):
        await server.ask("POST", "/v1/semantic-cache/store", {"text": TEXT, "payload": name, "id": name})
    gone = await server.ask("DELETE", "/v1/semantic-cache/default", {"ids": ["x", "no such"]})
    assert gone.json() == {"deleted": 1}
    assert (await server.ask("DELETE", "/v1/semantic-cache/default")).json() == {"deleted": 1}


async def test_a_promise_serves_nothing_before_it_has_learned(server: Cached) -> None:
    await server.ask("POST", "/v1/semantic-cache/store", {"text": TEXT, "payload": 1})
    asked = {"text": TEXT, "max_error": 0.05}
    found = (await server.ask("POST", "/v1/semantic-cache/lookup", asked)).json()
    assert found["hits"] == []
    assert found["threshold"] is None
    assert found["audit"] is True
    assert found["candidate"]["payload"] == 1
    said = {"id": found["lookup_id"], "right": True}
    assert (await server.ask("POST", "/v1/semantic-cache/feedback", said)).json() == {"learned": True}
    twice = await server.ask("POST", "/v1/semantic-cache/feedback", said)
    assert twice.status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "words_of_it"),
    [
        ("store", {"payload": 1}, "text"),
        ("store", {"text": "w1"}, "payload"),
        ("store", {"vector": [0.0, 0.0], "payload": 1}, "vector"),
        ("store", {"vector": [1e999, 1.0], "payload": 1}, ""),
        ("lookup", {"text": "w1", "threshold": 1.5}, "threshold"),
        ("lookup", {"text": "w1", "k": 0}, "k"),
        ("lookup", {"text": "w1", "k": 101}, "k"),
        ("lookup", {"text": "w1", "max_error": 0}, "max_error"),
        ("lookup", {"text": "w1", "max_error": 5e-324}, "max_error"),
        ("lookup", {"text": "w1", "max_error": 0.1, "confidence": 1e-9}, "confidence"),
        ("lookup", {"text": "w1", "namespace": ""}, "namespace"),
        ("feedback", {"id": "no such", "right": True}, "id"),
        ("feedback", {"id": "no such"}, "right"),
    ],
)
async def test_bad_input_is_told(server: Cached, path: str, body: dict[str, object], words_of_it: str) -> None:
    reply = await server.ask("POST", f"/v1/semantic-cache/{path}", body)
    assert reply.status_code == 400, reply.text
    assert words_of_it in reply.text


async def test_vectors_of_other_dimensions_are_refused_and_other_models_are_apart(server: Cached) -> None:
    await server.ask("POST", "/v1/semantic-cache/store", {"text": TEXT, "payload": 1})
    wrong = await server.ask("POST", "/v1/semantic-cache/lookup", {"vector": [1.0, 2.0]})
    assert wrong.status_code == 400
    assert "16" in wrong.text
    apart = await server.ask("POST", "/v1/semantic-cache/lookup", {"vector": [1.0, 2.0], "model": "theirs"})
    assert apart.json()["hits"] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("store", {"text": TEXT, "payload": 1, "namespace": "a\nb"}, 400),
        ("store", {"text": TEXT, "payload": 1, "ttl_s": 1e12}, 400),
        ("store", {"text": TEXT, "payload": 1, "id": "a\0"}, 400),
        ("store", {"text": TEXT, "payload": 1, "namespace": "full"}, 400),
        ("store", {"text": TEXT + " " * 70_000, "payload": 1}, 413),
        ("lookup", {"text": TEXT, "namespace": "a\nb"}, 400),
        ("lookup", {"text": TEXT, "namespace": "full"}, 400),
        ("lookup", {"text": TEXT + " " * 70_000}, 413),
    ],
)
async def test_what_is_refused_costs_no_forward_pass(
    server: Cached, path: str, body: dict[str, object], status: int
) -> None:
    other = {"vector": [1.0, 2.0], "payload": 1, "namespace": "full"}
    assert (await server.ask("POST", "/v1/semantic-cache/store", other)).status_code == 200
    assert (await server.ask("POST", f"/v1/semantic-cache/{path}", body)).status_code == status
    assert server.device.computed == []
