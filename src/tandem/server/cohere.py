"""Cohere's API: ``POST /v2/embed``, text only.

Source of shapes: Cohere's API reference for v2. ``input_type`` picks one of the model's own prompts, whatever it is
called there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from tandem.errors import InvalidInput
from tandem.server.base import Api, Reply
from tandem.server.encode import RowEncoder, as_base64, as_json, join
from tandem.server.gateway import Gateway
from tandem.server.inputs import EXACT, Dimensions, OwnFields, Texts, check_count, check_texts
from tandem.server.request import Request
from tandem.server.routing import Route
from tandem.types import Direction, EmbedRequest, EmbedResult

_USES = ["search_document", "search_query", "classification", "clustering"]
InputType: TypeAlias = Annotated[
    Literal["search_document", "search_query", "classification", "clustering", "image"],
    Meta(description="Picks the model's prompt for this use.", extra_json_schema={EXACT: {"enum": _USES}}),
]
EmbeddingType: TypeAlias = Annotated[
    Literal["float", "base64", "int8", "uint8", "binary", "ubinary"],
    Meta(extra_json_schema={EXACT: {"enum": ["float", "base64"]}}),
]
Refused: TypeAlias = Annotated[Any, Meta(description="Not supported.", extra_json_schema={EXACT: {"type": "null"}})]

# How prompts are called in the config_sentence_transformers.json of published models, best known first.
PROMPT_NAMES: Mapping[str, tuple[str, ...]] = {
    "search_query": ("query", "search_query", "retrieval.query", "retrieval-query", "s2p_query", "web_search_query"),
    "search_document": ("document", "passage", "search_document", "retrieval.passage", "retrieval-document", "corpus"),
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
}
_ENCODERS: Mapping[str, RowEncoder] = {"float": as_json, "base64": as_base64}


class CohereEmbedRequest(OwnFields, kw_only=True):
    """What Cohere's clients send, and Tandem's own fields."""

    model: Annotated[str, Meta(description="Any name of the served model.")]
    input_type: InputType
    # Not required, so that one who sends images instead hears that they are not supported.
    texts: Texts = msgspec.field(default_factory=list)
    embedding_types: Annotated[list[EmbeddingType] | None, Meta(description="null is float alone.")] = None
    truncate: Annotated[
        Literal["NONE", "START", "END"], Meta(description="The end that is cut; NONE refuses over-long texts.")
    ] = "END"
    output_dimension: Dimensions = None
    # Fields of Cohere's that are known in order to be refused.
    images: Refused = None
    inputs: Refused = None
    max_tokens: Refused = None


class CohereEmbeddings(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One list for each type that was asked for."""

    floats: list[list[float]] | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="float")
    base64: list[str] | msgspec.UnsetType = msgspec.UNSET


class CohereApiVersion(msgspec.Struct):
    """The version of the API that was spoken."""

    version: str


class CohereBilledUnits(msgspec.Struct):
    """Real tokens, special tokens included."""

    input_tokens: int


class CohereMeta(msgspec.Struct):
    """What the reply cost."""

    api_version: CohereApiVersion
    billed_units: CohereBilledUnits


class CohereEmbedReply(msgspec.Struct, kw_only=True):
    """``texts`` are the request's own, in order."""

    id: str
    embeddings: CohereEmbeddings
    texts: list[str]
    meta: CohereMeta
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"


class _Prompt(NamedTuple):
    name: str | None
    text: str | None


_decoder = msgspec.json.Decoder(CohereEmbedRequest)
_encode = msgspec.json.Encoder().encode


class Cohere:
    """Cohere's route over a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        prompts = gateway.service.model.prompts
        self._prompts = {input_type: _prompt(names, prompts) for input_type, names in PROMPT_NAMES.items()}

    def routes(self) -> list[Route]:
        """The one route."""
        example = {"model": self._gateway.model_id, "input_type": "search_query", "texts": ["How warm is the sea?"]}
        return [
            Route(
                "POST",
                "/v2/embed",
                Api.COHERE,
                self.embed,
                "Embed texts, the prompt chosen by their use",
                takes=CohereEmbedRequest,
                gives=CohereEmbedReply,
                example=example,
            )
        ]

    async def embed(self, request: Request) -> Reply:
        """Answer one request. Raises what the gateway raises, and InvalidInput for what is not text."""
        gateway = self._gateway
        body = await gateway.read(request, _decoder)
        _refuse_the_rest(body)
        gateway.check_model(body.model)
        check_count(len(body.texts), param="texts", max_items=gateway.max_items)
        check_texts(body.texts, param="texts")
        kinds: list[str] = list(dict.fromkeys(body.embedding_types or ["float"]))
        result = await gateway.embed(request, self._wanted(body))
        return await self._reply(request, body.texts, kinds, result)

    def _wanted(self, body: CohereEmbedRequest) -> EmbedRequest:
        named = body.prompt_name is not None
        prompt = _Prompt(body.prompt_name, None) if named else self._prompts[body.input_type]
        return EmbedRequest(
            inputs=body.texts,
            prompt_name=prompt.name,
            prompt=prompt.text,
            truncate=body.truncate != "NONE",
            truncation_direction=Direction.LEFT if body.truncate == "START" else Direction.RIGHT,
            normalize=body.normalize is not False,
            dimensions=body.output_dimension,
            priority=body.priority_or_normal(),
            cache=body.cache_mode(),
            timeout_s=self._gateway.timeout_s(body),
        )

    async def _reply(self, request: Request, texts: list[str], kinds: list[str], result: EmbedResult) -> Reply:
        lists = [b'"%b":[%b]' % (kind.encode(), await join(map(_ENCODERS[kind], result.rows))) for kind in kinds]
        meta = CohereMeta(CohereApiVersion("2"), CohereBilledUnits(request.tokens))
        parts = (
            b'{"id":' + _encode(request.id),
            b'"embeddings":{' + b",".join(lists) + b"}",
            b'"texts":' + _encode(texts),
            b'"meta":' + _encode(meta),
            b'"response_type":"embeddings_by_type"}',
        )
        return Reply(b",".join(parts))


def _prompt(names: tuple[str, ...], prompts: Mapping[str, str]) -> _Prompt:
    """The model's prompt for a use; where it has none, explicitly no prompt, and not the model's default one."""
    known = {name.lower(): name for name in prompts}
    fitting = next((known[name] for name in names if name in known), None)
    return _Prompt(None, "") if fitting is None else _Prompt(fitting, None)


def _refuse_the_rest(body: CohereEmbedRequest) -> None:
    """Raises InvalidInput for what would change the vectors and is not supported: ignoring it would be a lie."""
    if body.input_type == "image" or body.images is not None:
        raise InvalidInput("images are not supported: the model embeds text; send `texts`", param="images")
    if body.inputs is not None:
        raise InvalidInput("`inputs` is not supported; send `texts`", param="inputs")
    if body.max_tokens is not None:
        raise InvalidInput("`max_tokens` is not supported; texts are cut at the model's own length", param="max_tokens")
    others = [kind for kind in body.embedding_types or () if kind not in _ENCODERS]
    if others:
        supported = " and ".join(_ENCODERS)
        raise InvalidInput(
            f"`embedding_types` {others[0]!r} is not supported; {supported} are", param="embedding_types"
        )
