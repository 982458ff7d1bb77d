"""text-embeddings-inference's API: its routes, defaults, status codes and timing headers.

Source: the router of huggingface/text-embeddings-inference (router/src/http/server.rs, router/src/lib.rs).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from tandem import __version__
from tandem.errors import PayloadTooLarge
from tandem.server.base import Api, Headers, Reply
from tandem.server.encode import as_json, collect, join
from tandem.server.errors import WrongModelType
from tandem.server.gateway import Gateway
from tandem.server.inputs import AnyInputs, as_inputs, check_count, check_texts
from tandem.server.request import Request
from tandem.server.routing import Route
from tandem.server.tei_types import (
    SimilaritySentences,
    TeiEmbedAllRequest,
    TeiEmbedRequest,
    TeiInfo,
    TeiModelType,
    TeiPooling,
    TeiRootRequest,
    TeiSimilarityRequest,
    Truncation,
)
from tandem.types import EmbedRequest, EmbedResult, Output

_embed = msgspec.json.Decoder(TeiEmbedRequest)
_embed_all = msgspec.json.Decoder(TeiEmbedAllRequest)
_similarity = msgspec.json.Decoder(TeiSimilarityRequest)
_root = msgspec.json.Decoder(TeiRootRequest)
_encode = msgspec.json.Encoder().encode

MAX_TOKEN_FLOATS = 8_000_000
"""In one reply of ``/embed_all``: about 100 MB of JSON."""

_OTHER_MODELS = (
    ("/embed_sparse", "sparse embeddings need a SPLADE model"),
    ("/rerank", "the model is not a re-ranker"),
    ("/predict", "the model is not a classifier"),
)


class Tei:
    """TEI's routes over a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        kind = "cpu" if gateway.service.model.device.lower().startswith("cpu") else "gpu"
        self._compute: Headers = [(b"x-compute-type", f"{kind}+optimized".encode())]

    def routes(self) -> list[Route]:
        """The routes that embed or describe; tokens are in ``tei_tokens``, health and metrics in ``ops``."""
        texts = {"inputs": ["How warm is the sea?", "Water temperatures"]}
        compared = {"inputs": {"source_sentence": "How warm is the sea?", "sentences": ["Water temperatures", "Ships"]}}
        vectors, token_vectors = list[list[float]], list[list[list[float]]]
        root = "Embed or compare, by the shape of `inputs`"
        return [
            Route("POST", "/embed", Api.TEI, self.embed, "Embed texts", TeiEmbedRequest, vectors, texts),
            Route(
                "POST",
                "/embed_all",
                Api.TEI,
                self.embed_all,
                "One vector a token",
                TeiEmbedAllRequest,
                token_vectors,
                texts,
            ),
            Route(
                "POST",
                "/similarity",
                Api.TEI,
                self.similarity,
                "Cosine similarities",
                TeiSimilarityRequest,
                list[float],
                compared,
            ),
            Route("POST", "/", Api.TEI, self.root, root, TeiRootRequest, hidden=True),
            Route("GET", "/info", Api.TEI, self.info, "Describe the served model", gives=TeiInfo),
            *(_refusal(path, why) for path, why in _OTHER_MODELS),
        ]

    async def embed(self, request: Request) -> Reply:
        """One vector a text."""
        body = await self._gateway.read(request, _embed)
        return await self._embed(request, body.inputs, body, body.dimensions)

    async def root(self, request: Request) -> Reply:
        """``/embed`` or ``/similarity``."""
        body = await self._gateway.read(request, _root)
        if isinstance(body.inputs, SimilaritySentences):
            return await self._compare(request, body.inputs, body.parameters or body)
        return await self._embed(request, body.inputs, body, body.dimensions)

    async def embed_all(self, request: Request) -> Reply:
        """One vector a token: the model's last hidden states, not pooled."""
        body = await self._gateway.read(request, _embed_all)
        inputs = as_inputs(body.inputs, param="inputs", max_items=self._gateway.max_items)
        wanted = self._wanted(inputs, body, output=Output.TOKENS)
        self._check_token_rows(wanted)
        result = await self._gateway.embed(request, wanted)
        pieces = await collect(
            (b"," if index else b"[") + as_json(np.ascontiguousarray(rows)) for index, rows in enumerate(result.rows)
        )
        return Reply(b"", headers=self._headers(request, inputs, result), parts=[*pieces, b"]"])

    async def similarity(self, request: Request) -> Reply:
        """Cosine similarity of one sentence with each of the others."""
        body = await self._gateway.read(request, _similarity)
        return await self._compare(request, body.inputs, body.parameters or body)

    async def info(self, request: Request) -> Reply:
        """What is served."""
        model, options = self._gateway.service.model, self._gateway.options
        info = TeiInfo(
            model_id=model.id,
            model_sha=model.fingerprint,
            model_dtype=model.dtype,
            model_type=TeiModelType(TeiPooling(model.pooling)),
            max_concurrent_requests=options.max_concurrent_requests,
            max_input_length=model.max_tokens,
            max_batch_tokens=options.max_batch_tokens,
            max_batch_requests=None,
            max_client_batch_size=options.max_batch_items,
            auto_truncate=options.auto_truncate,
            tokenization_workers=1,
            version=__version__,
            dimensions=model.dims,
            device=model.device,
            tier=model.tier.value,
            prompts=sorted(model.prompts),
        )
        return Reply(_encode(info))

    async def _embed(self, request: Request, raw: AnyInputs, how: Truncation, dimensions: int | None) -> Reply:
        inputs = as_inputs(raw, param="inputs", max_items=self._gateway.max_items)
        result = await self._gateway.embed(request, self._wanted(inputs, how, dimensions=dimensions))
        text = await join(map(as_json, result.rows))
        return Reply(b"[" + text + b"]", headers=self._headers(request, inputs, result))

    async def _compare(self, request: Request, given: SimilaritySentences, how: Truncation) -> Reply:
        # One more than the sentences, as in TEI: the source is embedded with them.
        check_count(len(given.sentences) + 1, param="inputs", max_items=self._gateway.max_items)
        check_texts(given.sentences, param="inputs.sentences")
        check_texts([given.source_sentence], param="inputs.source_sentence")
        inputs = [given.source_sentence, *given.sentences]
        wanted = msgspec.structs.replace(self._wanted(inputs, how), normalize=True)
        result = await self._gateway.embed(request, wanted)
        rows = np.asarray(result.rows)
        return Reply(as_json(rows[1:] @ rows[0]), headers=self._headers(request, inputs, result))

    def _wanted(
        self,
        inputs: list[str] | list[list[int]],
        how: Truncation,
        *,
        dimensions: int | None = None,
        output: Output = Output.POOLED,
    ) -> EmbedRequest:
        return EmbedRequest(
            inputs=inputs,
            prompt_name=how.prompt_name,
            truncate=how.truncate,
            truncation_direction=how.direction(),
            # TEI's default is true, whatever the model's files say; token vectors it never normalises.
            normalize=how.normalize is not False if output is Output.POOLED else how.normalize is True,
            dimensions=dimensions,
            priority=how.priority_or_normal(),
            cache=how.cache_mode(),
            timeout_s=self._gateway.timeout_s(how),
            output=output,
        )

    def _check_token_rows(self, wanted: EmbedRequest) -> None:
        """Raises PayloadTooLarge when the reply could be longer than the limit.

        A text has at most as many tokens as bytes and two special ones: a bound that costs nothing to know.
        """
        model = self._gateway.service.model
        name = wanted.prompt_name or model.default_prompt_name or ""
        extra = len(model.prompts.get(name, "").encode("utf-8", "replace")) + 2
        sizes = (len(item.encode("utf-8", "replace") if isinstance(item, str) else item) for item in wanted.inputs)
        rows = sum(min(model.max_tokens, size + extra) for size in sizes)
        if rows * model.hidden > MAX_TOKEN_FLOATS:
            raise PayloadTooLarge(
                f"the reply could have {rows} token vectors of {model.hidden} numbers; at most {MAX_TOKEN_FLOATS} "
                f"numbers are given in one reply: send fewer texts (a text counts its bytes + {extra}, "
                f"at most {model.max_tokens})",
                param="inputs",
            )

    def _headers(self, request: Request, inputs: Sequence[str] | Sequence[list[int]], result: EmbedResult) -> Headers:
        """TEI's headers: whole milliseconds, since its clients read integers."""
        times = result.times
        total_ms = b"%d" % (times.total_s * 1000)
        return [
            *self._compute,
            (b"x-compute-time", total_ms),
            (b"x-compute-characters", b"%d" % sum(map(len, inputs))),
            (b"x-compute-tokens", b"%d" % request.tokens),
            (b"x-total-time", total_ms),
            (b"x-tokenization-time", b"%d" % (times.tokenize_s * 1000)),
            (b"x-queue-time", b"%d" % (times.queue_s * 1000)),
            (b"x-inference-time", b"%d" % (times.infer_s * 1000)),
        ]


def _refusal(path: str, why: str) -> Route:
    """A route of TEI's that is for another kind of model: 424, as TEI answers there."""

    async def refuse(request: Request) -> Reply:
        raise WrongModelType(f"{path} is not available: {why}; this is a dense embedding model, see /embed")

    return Route("POST", path, Api.TEI, refuse, f"Not available: {why}", hidden=True)
