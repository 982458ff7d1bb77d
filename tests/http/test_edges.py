"""What holds for every route: keys, methods, CORS, health, metrics, draining, clients that leave or dawdle."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tandem.errors import BackendFailed
from tandem.server.base import Message
from tandem.types import EmbedRequest
from tests.http.asgi import Exchange
from tests.http.conftest import Server

BODY = b'{"input": "a"}'


def samples(server: Server) -> dict[tuple[str, ...], float]:
    """Metrics by name and label values, in the order of the label names."""
    families = text_string_to_metric_families(server.metrics.render().decode())
    return {(s.name, *(v for _, v in sorted(s.labels.items()))): s.value for family in families for s in family.samples}


# --- keys


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer k-two"}, {"authorization": "bearer  k-one "}, {"x_api_key": "k-one"}],
)
async def test_each_key_opens_by_either_header(serve: Callable[..., Server], headers: dict[str, str]) -> None:
    server = serve(api_keys=("k-one", "k-two"))
    assert (await server.post("/v1/embeddings", BODY, **headers)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer nope"}, {"authorization": "Basic k-one"}])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed", "/v2/embed", "/info", "/tokenize"])
async def test_without_a_key_nothing_is_answered(
    serve: Callable[..., Server], path: str, headers: dict[str, str]
) -> None:
    server = serve(api_keys=("k-one",))
    method = "GET" if path == "/info" else "POST"
    reply = await server.client.request(method, path, content=BODY, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "key" in reply.text
    assert not server.engine.requests


async def test_a_key_beyond_ascii_does_not_trip_the_check(serve: Callable[..., Server]) -> None:
    server = serve(api_keys=("schlüssel",))
    good = {b"authorization": "Bearer schlüssel".encode()}
    bad = {b"authorization": b"Bearer \xff\xfe"}
    assert (await server.client.post("/v1/embeddings", content=BODY, headers=good)).status_code == 200
    assert (await server.client.post("/v1/embeddings", content=BODY, headers=bad)).status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/ping", "/metrics", "/docs", "/openapi.json"])
async def test_probes_need_no_key(serve: Callable[..., Server], path: str) -> None:
    assert (await serve(api_keys=("k",)).get(path)).status_code == 200


async def test_metrics_can_be_closed(serve: Callable[..., Server]) -> None:
    server = serve(api_keys=("k",), metrics_open=False)
    assert (await server.get("/metrics")).status_code == 401
    assert (await server.get("/metrics", x_api_key="k")).status_code == 200


# --- paths and methods


@pytest.mark.parametrize(("path", "shape"), [("/v1/nope", ["error"]), ("/nope", ["error", "error_type"])])
async def test_an_unknown_path_is_404_in_the_nearest_shape(server: Server, path: str, shape: list[str]) -> None:
    reply = await server.get(path)
    assert reply.status_code == 404
    assert sorted(reply.json()) == shape
    assert sorted((await server.get("/v2/nope")).json()) == ["id", "message"]


async def test_an_unknown_path_is_no_label(server: Server) -> None:
    await server.get("/secret/path")
    assert samples(server)["tandem_requests_total", "tei", "unmatched", "404"] == 1
    assert b"secret" not in server.metrics.render()


async def test_a_wrong_method_is_405_and_names_the_right_ones(server: Server) -> None:
    reply = await server.get("/v1/embeddings")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["error"]["code"] == "method_not_allowed"
    reply = await server.post("/info", {})
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET, HEAD")
    assert (await server.client.options("/embed")).status_code == 405


async def test_head_is_get_without_the_body(server: Server) -> None:
    reply = await server.client.head("/info")
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["content-length"]) == len((await server.get("/info")).content)


async def test_the_root_is_a_page_for_browsers_and_health_for_others(serve: Callable[..., Server]) -> None:
    server = serve(api_keys=("k",))
    reply = await server.get("/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (reply.status_code, reply.headers["location"]) == (307, "/docs")
    assert (await server.get("/")).status_code == 200
    server.engine.ready = (False, "the device failed")
    assert (await server.get("/")).status_code == 503


async def test_documentation_can_be_switched_off(serve: Callable[..., Server]) -> None:
    server = serve(docs=False)
    for path in ("/docs", "/openapi.json", "/docs/docs.js"):
        assert (await server.get(path)).status_code == 404
    assert (await server.get("/", accept="text/html")).status_code == 200


async def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    reply = await server.get("/docs")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    for path in ("/docs", "/docs/docs.css", "/docs/docs.js"):
        text = (await server.get(path)).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path


# --- CORS


async def test_without_cors_no_header_says_so(server: Server) -> None:
    reply = await server.post("/v1/embeddings", BODY, origin="https://a.example")
    assert not [name for name in reply.headers if name.startswith("access-control")]
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert (await server.client.options("/v1/embeddings", headers=asked)).status_code == 405


async def test_cors_for_a_named_origin(serve: Callable[..., Server]) -> None:
    server = serve(cors_origins=("https://a.example",), api_keys=("k",))
    asked = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    reply = await server.client.options("/v1/embeddings", headers=asked)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == "https://a.example"
    assert reply.headers["access-control-allow-methods"] == "POST"
    assert reply.headers["access-control-allow-headers"] == "authorization, content-type"
    reply = await server.post("/v1/embeddings", BODY, origin="https://a.example")
    assert reply.status_code == 401, "an error is readable by the page too"
    assert reply.headers["access-control-allow-origin"] == "https://a.example"
    reply = await server.post("/v1/embeddings", BODY, origin="https://b.example")
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["vary"] == "origin"


async def test_cors_for_any_origin(serve: Callable[..., Server]) -> None:
    reply = await serve(cors_origins=("*",)).post("/v1/embeddings", BODY, origin="https://b.example")
    assert reply.headers["access-control-allow-origin"] == "*"


# --- health


async def test_health_follows_the_engine(server: Server) -> None:
    assert (await server.get("/health")).content == b""
    assert (await server.get("/readyz")).json()["status"] == "ok"
    server.engine.ready = (False, "the device failed")
    reply = await server.get("/readyz")
    assert (reply.status_code, reply.json()) == (503, {"status": "unavailable", "reason": "the device failed"})
    reply = await server.get("/health")
    assert (reply.status_code, reply.json()) == (503, {"error": "the device failed", "error_type": "Unhealthy"})
    assert (await server.get("/livez")).status_code == 200


async def test_before_the_start_requests_are_told_to_come_back() -> None:
    server = Server({})
    reply = await server.post("/v1/embeddings", BODY)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert (await server.get("/readyz")).status_code == 503
    assert (await server.get("/livez")).status_code == 200
    await server.app.start()
    assert (await server.post("/v1/embeddings", BODY)).status_code == 200
    assert (await server.get("/readyz")).status_code == 200
    await server.app.close()
    await server.client.aclose()


# --- metrics


async def test_requests_are_counted_by_route_api_and_status(server: Server) -> None:
    await server.post("/v1/embeddings", BODY)
    await server.post("/embeddings", b"nope")
    await server.post("/embed", {"inputs": "a"})
    seen = samples(server)
    assert seen["tandem_requests_total", "openai", "/v1/embeddings", "200"] == 1
    assert seen["tandem_requests_total", "openai", "/v1/embeddings", "400"] == 1
    assert seen["tandem_request_duration_seconds_count", "tei", "/embed"] == 1
    assert seen["tandem_stage_duration_seconds_count", "encode"] == 2
    assert seen["tandem_queue_texts",] == 3
    assert seen["tandem_queue_tokens",] == 30


async def test_the_scrape_is_prometheus_text(server: Server) -> None:
    reply = await server.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "process_resident_memory_bytes" in reply.text
    assert samples(server)["tandem_inflight_requests",] == 0


async def test_the_access_log_is_one_line_of_json_without_texts(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tandem.access"):
        await serve().post("/v1/embeddings", {"input": "private words"})
        assert not caplog.records, "off by default"
        reply = await serve(access_log=True).post("/v1/embeddings", {"input": "private words"})
    (record,) = caplog.records
    line = json.loads(record.getMessage())
    assert line["id"] == reply.headers["x-request-id"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/embeddings", 200)
    assert (line["texts"], line["tokens"], line["api"]) == (1, 4, "openai")
    assert "private" not in record.getMessage()


# --- clients that leave or dawdle


async def test_a_client_that_leaves_takes_its_work_along(server: Server) -> None:
    never = asyncio.Event()
    server.engine.before = lambda request: never
    exchange = Exchange(server.app, "/v1/embeddings")
    exchange.body(BODY)
    await server.engine.arrived.wait()
    exchange.leave()
    await exchange.task
    assert server.engine.cancelled == 1
    assert exchange.sent == []
    assert samples(server)["tandem_requests_total", "openai", "/v1/embeddings", "499"] == 1
    assert server.app.inflight == 0
    server.engine.before = lambda request: None
    assert (await server.post("/v1/embeddings", BODY)).status_code == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body(server: Server) -> None:
    exchange = Exchange(server.app, "/v1/embeddings")
    exchange.body(b'{"inp', more=True)
    exchange.leave()
    await exchange.task
    assert exchange.sent == []
    assert not server.engine.requests


async def test_a_cancellation_from_elsewhere_is_not_swallowed(server: Server) -> None:
    server.engine.before = lambda request: asyncio.Event()
    exchange = Exchange(server.app, "/v1/embeddings")
    exchange.body(BODY)
    await server.engine.arrived.wait()
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    assert server.app.inflight == 0


async def test_a_client_that_dawdles_gets_408(serve: Callable[..., Server]) -> None:
    server = serve(body_read_timeout_s=0.01)
    exchange = Exchange(server.app, "/embed")
    exchange.body(b'{"inp', more=True)
    await exchange.task
    assert exchange.status == 408
    assert (b"connection", b"close") in exchange.sent[0]["headers"]
    assert "within 0.01 s" in json.loads(exchange.sent[1]["body"])["error"]


async def test_a_body_in_many_parts(server: Server) -> None:
    exchange = Exchange(server.app, "/v1/embeddings")
    for byte in BODY:
        exchange.body(bytes([byte]), more=True)
    exchange.body(b"")
    await exchange.task
    assert exchange.status == 200
    assert server.engine.requests[0].inputs == ["a"]


# --- draining


async def test_draining_finishes_what_was_accepted_and_refuses_the_rest(server: Server) -> None:
    gate = asyncio.Event()
    server.engine.before = lambda request: gate
    exchange = Exchange(server.app, "/v1/embeddings")
    exchange.body(BODY)
    await server.engine.arrived.wait()

    draining = asyncio.create_task(server.app.drain(10.0))
    await asyncio.sleep(0)  # the task has begun
    reply = await server.post("/v1/embeddings", BODY)
    assert reply.status_code == 503
    assert (reply.headers["retry-after"], reply.headers["connection"]) == ("1", "close")
    assert reply.json()["error"]["code"] == "draining"
    assert (await server.get("/livez")).status_code == 200
    assert (await server.get("/readyz")).status_code == 503
    assert not draining.done()

    gate.set()
    assert await draining
    assert exchange.status == 200
    assert (b"connection", b"close") in exchange.sent[0]["headers"]


async def test_draining_ends_at_its_limit(server: Server) -> None:
    server.engine.before = lambda request: asyncio.Event()
    exchange = Exchange(server.app, "/v1/embeddings")
    exchange.body(BODY)
    await server.engine.arrived.wait()
    assert not await server.app.drain(0.01)
    exchange.leave()
    await exchange.task


# --- the lifespan protocol, for other ASGI servers


async def test_another_asgi_server_can_run_the_app() -> None:
    server = Server({})
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.create_task(server.app({"type": "lifespan"}, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    assert await outbox.get() == {"type": "lifespan.startup.complete"}
    assert (await server.post("/v1/embeddings", BODY)).status_code == 200
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await task
    assert outbox.get_nowait() == {"type": "lifespan.shutdown.complete"}
    await server.client.aclose()


async def test_one_failing_request_does_not_touch_its_neighbours(server: Server) -> None:
    def fail_for_b(request: EmbedRequest) -> object:
        if request.inputs == ["b"]:
            raise BackendFailed("b is bad")
        return None

    server.engine.before = fail_for_b
    replies = await asyncio.gather(*(server.post("/v1/embeddings", {"input": t}) for t in "abababab"))
    assert [reply.status_code for reply in replies] == [200, 500] * 4
