"""Bodies of any bytes at all: an answer in the API's shape, never a fault of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.conftest import Server

GOOD = {
    "/v1/embeddings": {"input": ["grüße", "b"], "model": "tiny", "dimensions": 4, "encoding_format": "base64"},
    "/embed": {"inputs": [[11, 12]], "truncate": True, "truncation_direction": "Left", "timeout_ms": 60000},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"prompt_name": "query"}},
    "/decode": {"ids": [[11, 12]], "skip_special_tokens": False},
    "/v2/embed": {"model": "tiny", "input_type": "search_query", "texts": ["a"], "embedding_types": ["float"]},
}


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def server(runner: asyncio.Runner) -> Iterator[Server]:
    made = Server({})
    made.app.readiness.started()
    yield made
    runner.run(made.client.aclose())


@given(st.data())
@pytest.mark.parametrize("path", GOOD)
def test_any_bytes_get_an_answer(runner: asyncio.Runner, server: Server, path: str, data: st.DataObject) -> None:
    body = bytearray(json.dumps(GOOD[path], ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        until = data.draw(st.integers(at, min(len(body), at + 5)))
        body[at:until] = data.draw(st.binary(max_size=4) | st.sampled_from([b"\\ud83d", b"[", b"null", b"1e999", b'"']))
    reply = runner.run(server.post(path, bytes(body)))
    assert reply.status_code < 500, reply.text
    assert reply.json()
