"""OpenAI's API: ``POST /v1/embeddings``, ``GET /v1/models``, ``GET /v1/models/{id}``.

Source of shapes and limits: OpenAI's API reference and the requests of its official Python client.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import orjson
from msgspec import Meta

from tandem.errors import InvalidInput, TextTooLong
from tandem.server.base import Api, Reply
from tandem.server.encode import RowEncoder, as_base64, as_json, join
from tandem.server.gateway import Gateway
from tandem.server.inputs import Dimensions, Inputs, OwnFields, Truncate, as_inputs
from tandem.server.request import Request
from tandem.server.routing import Route
from tandem.types import EmbedRequest, EmbedResult

MODELS = "/v1/models"


class OpenAIEmbeddingsRequest(OwnFields, kw_only=True):
    """What OpenAI's clients send, and Tandem's own fields."""

    input: Inputs
    model: Annotated[str | None, Meta(description="Any name of the served model; null is that model.")] = None
    dimensions: Dimensions = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Meta(description="base64 is little-endian float32; null is float.")
    ] = None
    user: Annotated[str | None, Meta(description="Taken and not used.")] = None
    truncate: Truncate = None


class OpenAIEmbedding(msgspec.Struct, kw_only=True):
    """``embedding`` is a list of numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class OpenAIUsage(msgspec.Struct):
    """Real tokens, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddingsReply(msgspec.Struct, kw_only=True):
    """One item per input, in order."""

    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIModel(msgspec.Struct, kw_only=True):
    """A model that is served. ``created`` is when this process started, in Unix seconds."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tandem"


class OpenAIModels(msgspec.Struct, kw_only=True):
    """The models that are served: one."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


_decoder = msgspec.json.Decoder(OpenAIEmbeddingsRequest)
_encode = msgspec.json.Encoder().encode


class OpenAI:
    """OpenAI's routes over a gateway."""

    def __init__(self, gateway: Gateway, created_s: float) -> None:
        self._gateway = gateway
        self._model = OpenAIModel(id=gateway.model_id, created=int(created_s))
        # What does not change from reply to reply is encoded once.
        self._between = b'],"model":%b,"usage":{"prompt_tokens":' % orjson.dumps(gateway.model_id)

    def routes(self) -> list[Route]:
        """The routes; ``/embeddings`` and ``/models`` are for clients whose base URL lacks ``/v1``."""
        embeddings = Route(
            "POST",
            "/v1/embeddings",
            Api.OPENAI,
            self.embeddings,
            summary="Embed texts or token ids",
            takes=OpenAIEmbeddingsRequest,
            gives=OpenAIEmbeddingsReply,
            example={"input": ["How warm is the sea?", "Water temperatures"], "model": self._gateway.model_id},
            aliases=("/embeddings",),
        )
        models = Route(
            "GET",
            MODELS,
            Api.OPENAI,
            self.models,
            summary="List the served model",
            gives=OpenAIModels,
            aliases=("/models",),
        )
        model = Route(
            "GET", f"{MODELS}/{{model}}", Api.OPENAI, self.model, summary="Describe the served model", gives=OpenAIModel
        )
        return [embeddings, models, model]

    async def embeddings(self, request: Request) -> Reply:
        """Answer one request. Raises what the gateway raises."""
        gateway = self._gateway
        body = await gateway.read(request, _decoder)
        gateway.check_model(body.model)
        wanted = EmbedRequest(
            inputs=as_inputs(body.input, param="input", max_items=gateway.max_items),
            prompt_name=body.prompt_name,
            truncate=body.truncate,
            # The API promises unit vectors, whatever the model's files say; `normalize: false` takes them as they are.
            normalize=body.normalize is not False,
            dimensions=body.dimensions,
            priority=body.priority_or_normal(),
            cache=body.cache_mode(),
            timeout_s=gateway.timeout_s(body),
        )
        try:
            result = await gateway.embed(request, wanted)
        except (InvalidInput, TextTooLong) as error:
            # The engine knows no field names of ours: what it lays to no field, it found in the inputs.
            error.param = error.param or "input"
            raise
        return await self._reply(result, as_base64 if body.encoding_format == "base64" else as_json, request.tokens)

    async def models(self, request: Request) -> Reply:
        """List what is served."""
        return Reply(_encode(OpenAIModels(data=[self._model])))

    async def model(self, request: Request) -> Reply:
        """Describe one model. Raises UnknownModel."""
        name = request.path.removeprefix(f"{MODELS}/")
        self._gateway.check_model(name)
        return Reply(_encode(self._model))

    async def _reply(self, result: EmbedResult, encode: RowEncoder, tokens: int) -> Reply:
        rows = result.rows
        # One row is no reply to give way in the midst of.
        data = (
            _piece(0, encode(rows[0]))
            if len(rows) == 1
            else await join(_piece(index, encode(row)) for index, row in enumerate(rows))
        )
        usage = b'%d,"total_tokens":%d}}' % (tokens, tokens)
        return Reply(b"".join((b'{"object":"list","data":[', data, self._between, usage)))


def _piece(index: int, row: bytes) -> bytes:
    return b'{"object":"embedding","index":%d,"embedding":%b}' % (index, row)
