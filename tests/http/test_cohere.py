"""Cohere's API."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tandem.types import Direction
from tests.http.conftest import DIMS, Server, vector

BODY = {"model": "tiny", "input_type": "search_query", "texts": ["a", "b"]}


async def test_the_reply_has_coheres_shape(server: Server) -> None:
    reply = await server.post("/v2/embed", BODY)
    assert reply.status_code == 200
    body = reply.json()
    assert body["response_type"] == "embeddings_by_type"
    assert body["texts"] == ["a", "b"]
    assert body["meta"]["api_version"] == {"version": "2"}
    assert body["meta"]["billed_units"] == {"input_tokens": 8}
    assert body["id"] == reply.headers["x-request-id"]
    assert np.array_equal(np.array(body["embeddings"]["float"][1], np.float32), vector("query: b")[0])


@pytest.mark.parametrize(
    ("input_type", "prompt"),
    [("search_query", ("query", None)), ("search_document", ("passage", None)), ("classification", (None, ""))],
)
async def test_input_type_picks_the_models_prompt_or_none(
    server: Server, input_type: str, prompt: tuple[str | None, str | None]
) -> None:
    await server.post("/v2/embed", {**BODY, "input_type": input_type})
    (request,) = server.engine.requests
    assert (request.prompt_name, request.prompt) == prompt


async def test_a_prompt_that_is_named_wins(server: Server) -> None:
    await server.post("/v2/embed", {**BODY, "prompt_name": "passage"})
    assert server.engine.requests[0].prompt_name == "passage"


async def test_both_embedding_types_at_once(server: Server) -> None:
    reply = await server.post("/v2/embed", {**BODY, "embedding_types": ["base64", "float", "float"]})
    embeddings = reply.json()["embeddings"]
    assert sorted(embeddings) == ["base64", "float"]
    decoded = np.frombuffer(base64.b64decode(embeddings["base64"][0]), "<f4")
    assert np.array_equal(decoded, np.array(embeddings["float"][0], np.float32))


@pytest.mark.parametrize(
    ("truncate", "engine"),
    [("NONE", (False, Direction.RIGHT)), ("START", (True, Direction.LEFT)), ("END", (True, Direction.RIGHT))],
)
async def test_truncate_names_the_end(server: Server, truncate: str, engine: tuple[bool, Direction]) -> None:
    await server.post("/v2/embed", {**BODY, "truncate": truncate})
    (request,) = server.engine.requests
    assert (request.truncate, request.truncation_direction) == engine


async def test_output_dimension_cuts(server: Server) -> None:
    reply = await server.post("/v2/embed", {**BODY, "output_dimension": DIMS // 2})
    assert len(reply.json()["embeddings"]["float"][0]) == DIMS // 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input_type": "image"}, "images are not supported"),
        ({"input_type": "image", "texts": [], "images": ["data:image/png;base64,AA=="]}, "images are not supported"),
        ({"images": ["data:image/png;base64,AA=="]}, "images are not supported"),
        ({"inputs": [{"content": []}]}, "send `texts`"),
        ({"embedding_types": ["int8"]}, "float and base64 are"),
        ({"max_tokens": 5}, "`max_tokens` is not supported"),
    ],
)
async def test_what_would_change_the_vectors_is_refused(server: Server, change: dict[str, object], says: str) -> None:
    reply = await server.post("/v2/embed", {**BODY, **change})
    assert reply.status_code == 400
    assert sorted(reply.json()) == ["id", "message"]
    assert says in reply.json()["message"]
    assert not server.engine.requests
