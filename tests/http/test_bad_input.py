"""Bad input gets a clear error in the shape of the API that was asked, and the service goes on."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from tandem.errors import BackendFailed, DeadlineExceeded, NotReady, Overloaded
from tandem.types import EmbedRequest
from tests.http.conftest import Server


class Api(msgspec.Struct, frozen=True):
    """One API: where it embeds, what its body is called, and how its errors are read."""

    name: str
    path: str
    items: str
    rest: dict[str, Any]
    dimensions: str
    takes_ids: bool

    def body(self, items: object, **fields: object) -> dict[str, object]:
        return {self.items: items, **self.rest, **fields}

    def message(self, reply: httpx.Response) -> str:
        """The error's sentence; fails when the reply has another API's shape."""
        body = reply.json()
        assert reply.headers["content-type"] == "application/json"
        if self.name == "openai":
            assert list(body) == ["error"]
            assert sorted(body["error"]) == ["code", "message", "param", "type"]
            return str(body["error"]["message"])
        assert sorted(body) == (["error", "error_type"] if self.name == "tei" else ["id", "message"])
        return str(body["error"] if self.name == "tei" else body["message"])


OPENAI = Api("openai", "/v1/embeddings", "input", {}, "dimensions", True)
TEI = Api("tei", "/embed", "inputs", {}, "dimensions", True)
COHERE = Api(
    "cohere", "/v2/embed", "texts", {"model": "tiny", "input_type": "search_document"}, "output_dimension", False
)
APIS = [OPENAI, TEI, COHERE]


@pytest.fixture(params=APIS, ids=[api.name for api in APIS])
def api(request: pytest.FixtureRequest) -> Api:
    chosen: Api = request.param
    return chosen


async def refused(server: Server, api: Api, body: object, says: str, **status: int) -> httpx.Response:
    """Post, expect an error that says so in the API's shape, and see that the next request is answered."""
    reply = await server.post(api.path, body)
    expected = status.get(api.name, status.get("status", 400))
    assert reply.status_code == expected, reply.text
    assert says in api.message(reply)
    assert (await server.post(api.path, api.body(["fine"]))).status_code == 200
    return reply


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is empty"),
        (b"  \n", "the body is empty"),
        (b"not json", "not valid JSON"),
        (b'{"input": ["a"]', "not valid JSON"),
        (b'{"input": ["a"], "model": "tiny", "input_type": "search_query"} x', "not valid JSON"),
        (b'{"input": NaN}', "not valid JSON"),
    ],
)
async def test_not_json(server: Server, api: Api, body: bytes, says: str) -> None:
    await refused(server, api, body.replace(b'"input"', b'"%b"' % api.items.encode()), says)


async def test_invalid_utf8(server: Server, api: Api) -> None:
    body = json.dumps(api.body(["TEXT"])).encode().replace(b"TEXT", b"caf\xe9")
    await refused(server, api, body, "not valid UTF-8: byte 0xe9")


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udfff tail", b"\\ud800\\u0041"])
async def test_lone_surrogates(server: Server, api: Api, escape: bytes) -> None:
    body = json.dumps(api.body(["TEXT"])).encode().replace(b"TEXT", escape)
    await refused(server, api, body, "lone surrogate")


async def test_nesting_without_end(server: Server, api: Api) -> None:
    body = json.dumps(api.body(["a"])).encode()[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    await refused(server, api, body, "nested too deeply")


async def test_nul_is_a_character_like_others(server: Server, api: Api) -> None:
    assert (await server.post(api.path, api.body(["a\0b"]))).status_code == 200
    assert server.engine.requests[0].inputs == ["a\0b"]


@pytest.mark.parametrize("body", [[], "text", None, 5, [{"input": "a"}]])
async def test_a_body_that_is_no_object(server: Server, api: Api, body: object) -> None:
    await refused(server, api, body, "Expected `object`", tei=422)


async def test_no_input_at_all(server: Server, api: Api) -> None:
    body = {**api.rest, "nothing": 1}
    says = "`texts` is empty" if api is COHERE else f"required field `{api.items}`"
    await refused(server, api, body, says, tei=422)


@pytest.mark.parametrize("items", [5, 1.5, True, None, {"a": 1}])
async def test_input_of_the_wrong_type(server: Server, api: Api, items: object) -> None:
    reply = await refused(server, api, api.body(items), f"`$.{api.items}`", tei=422)
    if api is OPENAI:
        assert reply.json()["error"]["param"] == "input"


@pytest.mark.parametrize("items", [["a", None], ["a", {}], ["a", 1.5]])
async def test_a_list_with_something_else_in_it(server: Server, api: Api, items: object) -> None:
    await refused(server, api, api.body(items), f"`$.{api.items}[1]`", tei=422)


@pytest.mark.parametrize("items", [["a", 5], [[5], "a"], [5, [5]]])
async def test_a_list_of_texts_and_ids(server: Server, api: Api, items: object) -> None:
    await refused(server, api, api.body(items), "mixes" if api.takes_ids else "Expected `str`", tei=422)


@pytest.mark.parametrize("items", [[], [""], ["a", ""]])
async def test_nothing_to_embed(server: Server, api: Api, items: object) -> None:
    reply = await refused(server, api, api.body(items), "is empty")
    if api is TEI:
        assert reply.json()["error_type"] == "Empty"


@pytest.mark.parametrize("items", ["", [[]], [[5], []]])
async def test_nothing_to_embed_in_the_forms_that_cohere_has_not(server: Server, items: object) -> None:
    for api in (OPENAI, TEI):
        await refused(server, api, api.body(items), "is empty")


async def test_ten_thousand_items(server: Server, api: Api) -> None:
    says = "has 10000 items; at most 2048 are taken"
    await refused(server, api, api.body(["a"] * 10_000), says, tei=413)


async def test_token_ids_outside_the_vocabulary(server: Server) -> None:
    for api in (OPENAI, TEI):
        await refused(server, api, api.body([5, 5000]), "token id 5000", tei=422)
        await refused(server, api, api.body([[5, -1]]), "`$." + api.items, tei=422)
        await refused(server, api, api.body([2**31]), "`$." + api.items, tei=422)
        await refused(server, api, api.body([10**30]), "`$." + api.items, tei=422)


@pytest.mark.parametrize(("value", "says"), [(9, "9"), (0, ">= 1"), (-1, ">= 1"), (1.5, "float"), ("4", "str")])
async def test_dimensions_out_of_range(server: Server, api: Api, value: object, says: str) -> None:
    await refused(server, api, api.body(["a"], **{api.dimensions: value}), says, tei=422)


async def test_an_over_long_text_with_truncation_off(server: Server, api: Api) -> None:
    off: object = "NONE" if api is COHERE else False
    body = api.body(["word " * 50], truncate=off)
    await refused(server, api, body, "tokens, the model takes 16", tei=413)


@pytest.mark.parametrize("name", ["gpt-9", "", "ACME/TINY-EMBED"])
async def test_an_unknown_model(server: Server, name: str) -> None:
    for api in (OPENAI, COHERE):
        await refused(server, api, api.body(["a"], model=name), "is not served here", status=404)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "urgent"),
        ("priority", 1),
        ("timeout_ms", 0),
        ("timeout_ms", 10**9),
        ("timeout_ms", "1"),
        ("normalize", "yes"),
        ("prompt_name", 5),
        ("prompt_name", ""),
        ("truncate", 5),
    ],
)
async def test_own_fields_are_strict(server: Server, api: Api, field: str, value: object) -> None:
    await refused(server, api, api.body(["a"], **{field: value}), f"`$.{field}`", tei=422)


async def test_an_unknown_prompt_name(server: Server, api: Api) -> None:
    await refused(server, api, api.body(["a"], prompt_name="nope"), "'nope'", tei=422)


@pytest.mark.parametrize(
    ("api_", "field", "value"),
    [
        (OPENAI, "encoding_format", "hex"),
        (TEI, "truncation_direction", "up"),
        (TEI, "encoding_format", "base64"),
        (COHERE, "input_type", "poem"),
        (COHERE, "truncate", "MIDDLE"),
        (COHERE, "embedding_types", ["float64"]),
    ],
)
async def test_words_outside_a_list(server: Server, api_: Api, field: str, value: object) -> None:
    await refused(server, api_, api_.body(["a"], **{field: value}), f"`$.{field}", tei=422)


async def test_a_body_announced_as_too_large(server: Server, api: Api) -> None:
    body = json.dumps(api.body(["a" * 50_000_000]))
    await refused(server, api, body.encode(), "larger than the limit of 1000000 bytes", status=413)


async def test_a_body_that_grows_too_large_while_it_arrives(server: Server, api: Api) -> None:
    sent = []

    async def endless() -> Any:
        for _ in range(10_000):
            sent.append(1)
            yield b"a" * 10_000

    reply = await server.client.post(api.path, content=endless())
    assert reply.status_code == 413
    assert "larger than" in api.message(reply)
    assert len(sent) < 200


async def test_gzip_is_taken(server: Server, api: Api) -> None:
    body = gzip.compress(json.dumps(api.body(["a"])).encode())
    assert (await server.post(api.path, body, content_encoding="gzip")).status_code == 200


async def test_a_gzip_bomb_is_held_to_the_limit(server: Server, api: Api) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 300_000
    reply = await server.post(api.path, bomb, content_encoding="gzip")
    assert reply.status_code == 413
    assert "larger than" in api.message(reply)


@pytest.mark.parametrize("body", [b"{}", gzip.compress(b"{}")[:-4], zlib.compress(b"{}"), b""])
async def test_broken_gzip(server: Server, api: Api, body: bytes) -> None:
    reply = await server.post(api.path, body, content_encoding="gzip")
    assert reply.status_code == (422 if api is TEI else 400)
    assert "not valid gzip" in api.message(reply)


async def test_other_encodings_and_types_are_named_and_refused(server: Server, api: Api) -> None:
    reply = await server.post(api.path, api.body(["a"]), content_encoding="br")
    assert reply.status_code == 415
    assert "'br'" in api.message(reply)
    form = {"content-type": "application/x-www-form-urlencoded"}
    reply = await server.client.post(api.path, content=b"input=a", headers=form)
    assert reply.status_code == 415
    assert "must be application/json" in api.message(reply)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"])
async def test_json_by_other_names(server: Server, api: Api, kind: str) -> None:
    body = json.dumps(api.body(["a"])).encode()
    reply = await server.client.post(api.path, content=body, headers={"content-type": kind})
    assert reply.status_code == 200
    assert (await server.client.post(api.path, content=body)).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Overloaded("busy", retry_after_s=2.2), {"status": 429}, "3"),
        (Overloaded("busy", retry_after_s=0.01), {"status": 429}, "1"),
        (NotReady("loading"), {"status": 503}, None),
        (DeadlineExceeded("too late"), {"status": 504}, None),
        (BackendFailed("the device failed"), {"status": 500, "tei": 424}, None),
    ],
)
async def test_what_the_service_can_not_do(
    server: Server, api: Api, error: Exception, status: dict[str, int], retry_after: str | None
) -> None:
    server.engine.before = failing(error)
    reply = await server.post(api.path, api.body(["a"]))
    assert reply.status_code == status.get(api.name, status["status"])
    assert api.message(reply) == str(error)
    assert reply.headers.get("retry-after") == retry_after


async def test_an_error_that_nobody_expected(server: Server, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    server.engine.before = failing(ZeroDivisionError("secret detail"))
    reply = await server.post(api.path, api.body(["a"]))
    assert reply.status_code == 500
    assert reply.headers["x-request-id"] in api.message(reply)
    assert "secret" not in reply.text
    (record,) = caplog.records
    assert reply.headers["x-request-id"] in record.getMessage()
    assert record.exc_info is not None
    server.engine.before = lambda request: None
    assert (await server.post(api.path, api.body(["a"]))).status_code == 200


def failing(error: Exception) -> Callable[[EmbedRequest], object]:
    def fail(request: EmbedRequest) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/tokenize", {"inputs": [""]}, 400, "is empty"),
        ("/tokenize", {"inputs": []}, 400, "is empty"),
        ("/tokenize", {"inputs": ["a", 5]}, 422, "$.inputs[1]"),
        ("/tokenize", {"inputs": ["a"] * 3000}, 413, "at most 2048"),
        ("/decode", {"ids": []}, 400, "is empty"),
        ("/decode", {"ids": [[]]}, 400, "is empty"),
        ("/decode", {"ids": [5000]}, 422, "outside the vocabulary"),
        ("/decode", {"ids": [1, [1]]}, 422, "mixes"),
        ("/decode", {"ids": "a"}, 422, "$.ids"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "is empty"),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["a"]}}, 400, "is empty"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "sentences"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["a"] * 2048}}, 413, "2049 items"),
        ("/embed_all", {"inputs": []}, 400, "is empty"),
        ("/embed_all", {"inputs": None}, 422, "$.inputs"),
    ],
)
async def test_teis_other_routes(server: Server, path: str, body: object, status: int, says: str) -> None:
    reply = await server.post(path, body)
    assert reply.status_code == status
    assert says in TEI.message(reply)
