"""OpenAI's API: what its clients send, and what they read."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
import pytest

from tandem.types import Priority
from tests.http.conftest import DIMS, Server, vector


async def test_a_text_gives_one_embedding(server: Server) -> None:
    reply = await server.post("/v1/embeddings", {"input": "hello there", "model": "tiny"})
    assert reply.status_code == 200
    body = reply.json()
    assert body["object"] == "list"
    assert body["model"] == "acme/tiny-embed"
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    (item,) = body["data"]
    assert (item["object"], item["index"]) == ("embedding", 0)
    assert len(item["embedding"]) == DIMS


async def test_what_is_read_is_the_exact_float32(server: Server) -> None:
    item = (await server.post("/v1/embeddings", {"input": "hello"})).json()["data"][0]
    assert np.array_equal(np.array(item["embedding"], np.float32), vector("hello")[0])


async def test_base64_holds_little_endian_float32(server: Server) -> None:
    body = {"input": ["a", "b"], "encoding_format": "base64"}
    data = (await server.post("/v1/embeddings", body)).json()["data"]
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data]
    assert np.array_equal(np.stack(rows), np.concatenate([vector("a"), vector("b")]))


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
    ids=["text", "texts", "ids", "id lists"],
)
async def test_the_four_kinds_of_input(server: Server, given: object, texts: object) -> None:
    reply = await server.post("/v1/embeddings", {"input": given})
    assert reply.status_code == 200
    assert [item["index"] for item in reply.json()["data"]] == list(range(len(reply.json()["data"])))
    assert server.engine.requests[0].inputs == texts


async def test_a_long_list_keeps_its_order(server: Server) -> None:
    texts = [f"text {i}" for i in range(500)]
    data = (await server.post("/v1/embeddings", {"input": texts})).json()["data"]
    assert [item["index"] for item in data] == list(range(500))
    assert np.array_equal(np.array(data[499]["embedding"], np.float32), vector("text 499")[0])


async def test_dimensions_cut_and_normalise_again(server: Server) -> None:
    row = (await server.post("/v1/embeddings", {"input": "a", "dimensions": 3})).json()["data"][0]["embedding"]
    assert len(row) == 3
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)


async def test_own_fields_reach_the_engine(server: Server) -> None:
    own = {"prompt_name": "query", "truncate": False, "normalize": False, "priority": "background", "timeout_ms": 1500}
    reply = await server.post("/v1/embeddings", {"input": "a", "user": "u-1", "unknown": [1], **own})
    assert reply.status_code == 200
    (request,) = server.engine.requests
    assert (request.prompt_name, request.truncate, request.normalize) == ("query", False, False)
    assert (request.priority, request.timeout_s) == (Priority.BACKGROUND, 1.5)


async def test_nulls_mean_defaults(server: Server) -> None:
    nothing = dict.fromkeys(["model", "dimensions", "encoding_format", "user", "prompt_name", "truncate", "priority"])
    assert (await server.post("/v1/embeddings", {"input": "a", **nothing})).status_code == 200
    (request,) = server.engine.requests
    assert (request.truncate, request.normalize, request.priority) == (None, True, Priority.NORMAL)


async def test_the_servers_deadline_holds_where_the_request_names_none(serve: Callable[..., Server]) -> None:
    server = serve(request_timeout_s=3.0)
    await server.post("/v1/embeddings", {"input": "a"})
    await server.post("/v1/embeddings", {"input": "a", "timeout_ms": 500})
    assert [request.timeout_s for request in server.engine.requests] == [3.0, 0.5]


async def test_a_served_name_is_accepted_and_reported(serve: Callable[..., Server]) -> None:
    server = serve(served_model_names=("text-embedding-3-small", "other"))
    for name in ("text-embedding-3-small", "other", "tiny", "acme/tiny-embed"):
        reply = await server.post("/v1/embeddings", {"input": "a", "model": name})
        assert reply.json()["model"] == "text-embedding-3-small"


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_lists_the_one_that_is_served(server: Server, path: str) -> None:
    body = (await server.get(path)).json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["acme/tiny-embed"]


@pytest.mark.parametrize("name", ["acme/tiny-embed", "acme%2Ftiny-embed", "tiny"])
async def test_a_model_is_found_by_each_of_its_names(server: Server, name: str) -> None:
    body = (await server.get(f"/v1/models/{name}")).json()
    assert (body["id"], body["object"], body["owned_by"]) == ("acme/tiny-embed", "model", "tandem")
    assert isinstance(body["created"], int)


async def test_an_unknown_model_is_404_in_openais_shape(server: Server) -> None:
    for reply in (
        await server.post("/v1/embeddings", {"input": "a", "model": "gpt-9"}),
        await server.get("/v1/models/gpt-9"),
    ):
        assert reply.status_code == 404
        error = reply.json()["error"]
        assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")
        assert "gpt-9" in error["message"]
        assert "acme/tiny-embed" in error["message"]


async def test_every_reply_has_its_own_id(server: Server) -> None:
    ids = {(await server.post("/embeddings", {"input": "a"})).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_what_is_wrong_with_an_input_names_the_field(server: Server) -> None:
    reply = await server.post("/v1/embeddings", {"input": "word " * 100, "truncate": False})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "input")
