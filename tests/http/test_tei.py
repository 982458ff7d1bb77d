"""text-embeddings-inference's API."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tandem.server.tei import MAX_TOKEN_FLOATS
from tandem.server.tei_tokens import MAX_SIZE
from tandem.types import Direction, Output
from tests.http.conftest import DIMS, FakeModel, Server, vector


@pytest.mark.parametrize("path", ["/embed", "/"])
async def test_embed_gives_bare_rows(server: Server, path: str) -> None:
    reply = await server.post(path, {"inputs": ["a", "b"]})
    assert reply.status_code == 200
    assert np.array_equal(np.array(reply.json(), np.float32), np.concatenate([vector("a"), vector("b")]))


async def test_one_text_gives_a_list_of_one_row(server: Server) -> None:
    assert np.shape((await server.post("/embed", {"inputs": "a"})).json()) == (1, DIMS)


async def test_token_ids_are_taken(server: Server) -> None:
    await server.post("/embed", {"inputs": [[11, 12], [13]]})
    assert server.engine.requests[0].inputs == [[11, 12], [13]]


async def test_fields_reach_the_engine(server: Server) -> None:
    fields = {"truncate": True, "truncation_direction": "Left", "prompt_name": "query", "normalize": False}
    assert (await server.post("/embed", {"inputs": "a", "dimensions": 4, **fields})).status_code == 200
    (request,) = server.engine.requests
    assert (request.truncate, request.truncation_direction) == (True, Direction.LEFT)
    assert (request.prompt_name, request.normalize, request.dimensions) == ("query", False, 4)


@pytest.mark.parametrize("name", ["Right", "right", "Left", "left"])
async def test_both_spellings_of_a_direction(server: Server, name: str) -> None:
    assert (await server.post("/embed", {"inputs": "a", "truncation_direction": name})).status_code == 200
    assert server.engine.requests[0].truncation_direction is Direction(name.lower())


async def test_defaults_are_teis(server: Server) -> None:
    await server.post("/embed", {"inputs": "a"})
    (request,) = server.engine.requests
    assert (request.normalize, request.truncate, request.truncation_direction) == (True, None, Direction.RIGHT)


async def test_timing_headers_are_whole_milliseconds(server: Server) -> None:
    headers = (await server.post("/embed", {"inputs": ["abc", "de fg"]})).headers
    assert headers["x-compute-type"] == "cpu+optimized"
    assert headers["x-compute-characters"] == "8"
    assert headers["x-compute-tokens"] == "7"
    assert (headers["x-total-time"], headers["x-compute-time"]) == ("6", "6")
    assert (headers["x-tokenization-time"], headers["x-queue-time"], headers["x-inference-time"]) == ("1", "2", "3")


async def test_embed_all_gives_one_row_a_token(server: Server) -> None:
    reply = await server.post("/embed_all", {"inputs": ["one two", "three"]})
    assert [np.shape(rows) for rows in reply.json()] == [(4, DIMS), (3, DIMS)]
    assert server.engine.requests[0].output is Output.TOKENS


async def test_embed_all_refuses_what_would_be_a_reply_without_bound(serve: Callable[..., Server]) -> None:
    server = serve()
    server.engine.model = FakeModel(hidden=MAX_TOKEN_FLOATS // 10)
    assert (await server.post("/embed_all", {"inputs": ["one", "two"]})).status_code == 200  # 2 x (3 + 2) rows
    reply = await server.post("/embed_all", {"inputs": ["one", "four"]})
    assert reply.status_code == 413
    assert str(MAX_TOKEN_FLOATS) in reply.json()["error"]
    assert len(server.engine.requests) == 1


@pytest.mark.parametrize("path", ["/similarity", "/"])
async def test_similarity_is_the_cosine(server: Server, path: str) -> None:
    inputs = {"source_sentence": "a", "sentences": ["a", "b"]}
    reply = await server.post(path, {"inputs": inputs, "parameters": {"prompt_name": "query"}})
    assert reply.status_code == 200
    same, other = reply.json()
    assert same == pytest.approx(1, abs=1e-6)
    assert other == pytest.approx(float(vector("query: a")[0] @ vector("query: b")[0]), abs=1e-6)
    assert len(server.engine.requests) == 1


async def test_similarity_takes_own_fields_at_the_top(server: Server) -> None:
    inputs = {"source_sentence": "a", "sentences": ["b"]}
    body = {"inputs": inputs, "timeout_ms": 5000, "truncate": False, "prompt_name": "query"}
    assert (await server.post("/similarity", body)).status_code == 200
    (request,) = server.engine.requests
    assert (request.timeout_s, request.truncate, request.prompt_name) == (5.0, False, "query")


async def test_tokenize_shows_every_token(server: Server) -> None:
    (tokens,) = (await server.post("/tokenize", {"inputs": "ab cde"})).json()
    assert tokens[0] == {"id": 1, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert tokens[2] == {"id": 13, "text": "cde", "special": False, "start": 3, "stop": 6}


async def test_tokenize_can_leave_out_special_tokens_and_put_a_prompt_first(server: Server) -> None:
    body = {"inputs": ["ab"], "add_special_tokens": False, "prompt_name": "query"}
    (tokens,) = (await server.post("/tokenize", body)).json()
    assert [token["text"] for token in tokens] == ["query:", "ab"]


@pytest.mark.parametrize(
    ("path", "body"), [("/tokenize", {"inputs": "a" * (MAX_SIZE + 1)}), ("/decode", {"ids": [11] * (MAX_SIZE + 1)})]
)
async def test_what_tokens_take_has_a_limit(serve: Callable[..., Server], path: str, body: object) -> None:
    reply = await serve(max_body_bytes=10_000_000).post(path, body)
    assert reply.status_code == 413
    assert str(MAX_SIZE) in reply.json()["error"]


@pytest.mark.parametrize(("path", "body"), [("/tokenize", {"inputs": "a"}), ("/decode", {"ids": [11]})])
async def test_requests_for_tokens_have_permits(serve: Callable[..., Server], path: str, body: object) -> None:
    reply = await serve(max_concurrent_requests=0).post(path, body)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")


async def test_an_unknown_prompt_names_those_there_are(server: Server) -> None:
    reply = await server.post("/tokenize", {"inputs": "a", "prompt_name": "nope"})
    assert reply.status_code == 422
    assert "passage, query" in reply.json()["error"]


@pytest.mark.parametrize(("ids", "texts"), [([1, 11, 12], ["t11 t12"]), ([[11], [1, 12]], ["t11", "t12"])])
async def test_decode_gives_texts(server: Server, ids: object, texts: object) -> None:
    assert (await server.post("/decode", {"ids": ids})).json() == texts


async def test_decode_can_keep_special_tokens(server: Server) -> None:
    assert (await server.post("/decode", {"ids": [1, 11], "skip_special_tokens": False})).json() == ["t1 t11"]


async def test_info_describes_the_model(server: Server) -> None:
    info = (await server.get("/info")).json()
    assert info["model_id"] == "acme/tiny-embed"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_client_batch_size"]) == (16, 2048)
    assert (info["dimensions"], info["tier"], info["prompts"]) == (DIMS, "fp32", ["passage", "query"])


@pytest.mark.parametrize("path", ["/embed_sparse", "/rerank", "/predict"])
async def test_routes_for_other_models_say_so_as_tei_does(server: Server, path: str) -> None:
    reply = await server.post(path, {"inputs": "a"})
    assert reply.status_code == 424
    assert reply.json()["error_type"] == "Backend"
    assert path in reply.json()["error"]
