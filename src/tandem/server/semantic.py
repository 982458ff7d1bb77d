"""The semantic cache over HTTP: ``/v1/semantic-cache/store``, ``lookup``, ``feedback``, ``DELETE .../{namespace}``.

For what people put behind embeddings: an answer of a language model, the hits of a search. It is kept under a text's
vector, and found again by a text that means the same.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from tandem.errors import InvalidInput
from tandem.semantic import checks
from tandem.semantic.base import NO_VECTOR, Hit, Item, Lookup, Namespace, Vector
from tandem.server.base import Api, Reply
from tandem.server.errors import NotJson
from tandem.server.gateway import Gateway
from tandem.server.request import Request
from tandem.server.routing import Handler, Route
from tandem.sharing import SharedSemantic
from tandem.types import EmbedRequest
from tandem.verification import Promise

PATH = "/v1/semantic-cache"
# They are routes, so nothing could delete a namespace of that name.
_TAKEN = frozenset({"store", "lookup", "feedback"})
_REPLY_BYTES = 8 << 20

Name = Annotated[str, Meta(min_length=1, max_length=200, description="Entries of one namespace never meet another's.")]
Id = Annotated[str, Meta(min_length=1, max_length=200)]
Given = Annotated[list[float] | None, Meta(description="A vector of your own, instead of the text's.")]
Made = Annotated[str | None, Meta(description="What made your vector; null is the served model.")]


class SemanticStore(msgspec.Struct, kw_only=True):
    """What to keep, and under which text or vector."""

    payload: Annotated[msgspec.Raw, Meta(description="Any JSON; comes back as it is.")]
    namespace: Name = "default"
    text: Annotated[str | None, Meta(description="Embedded here unless a vector is given; comes back with hits.")] = (
        None
    )
    vector: Given = None
    model: Made = None
    ttl_s: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="How long it is good, seconds; null for ever.")
    ] = None
    id: Annotated[Id | None, Meta(description="One that is there is replaced.")] = None


class SemanticStored(msgspec.Struct):
    """``id`` names the entry in feedback and deletion."""

    id: str


class SemanticLookup(msgspec.Struct, kw_only=True):
    """What to look for. With ``max_error`` the threshold is the one that was learned to keep that promise."""

    namespace: Name = "default"
    text: Annotated[str | None, Meta(description="Embedded here unless a vector is given.")] = None
    vector: Given = None
    model: Made = None
    threshold: Annotated[float, Meta(ge=-1, le=1, description="The least cosine.")] = 0.95
    k: Annotated[int, Meta(ge=1, le=100, description="How many hits at the most, the nearest first.")] = 1
    max_error: Annotated[
        Annotated[float, Meta(ge=checks.MIN_ERROR, le=checks.MAX_ERROR)] | None,
        Meta(description="Serve only what keeps this share of wrong answers."),
    ] = None
    confidence: Annotated[
        float, Meta(ge=checks.MIN_CONFIDENCE, le=checks.MAX_CONFIDENCE, description="How certainly it is kept.")
    ] = 0.99


class SemanticHit(msgspec.Struct):
    """An entry. ``similarity`` is the cosine."""

    id: str
    similarity: float
    payload: msgspec.Raw
    age_s: float
    text: str | None


class SemanticFound(msgspec.Struct):
    """``hits`` may be empty. ``threshold`` is what they reach, null while a promise can not be kept. Where ``audit`` is
    true, compute the true answer too and tell by ``lookup_id`` whether the hit, or the ``candidate``, was right."""

    hits: list[SemanticHit]
    threshold: float | None
    lookup_id: str | None = None
    audit: bool = False
    candidate: SemanticHit | None = None


class SemanticFeedback(msgspec.Struct, kw_only=True):
    """``id`` is a look-up's or an entry's."""

    id: Id
    right: bool
    namespace: Name = "default"
    model: Made = None


class SemanticLearned(msgspec.Struct):
    """Whether a threshold learned from it."""

    learned: bool


class SemanticDelete(msgspec.Struct, kw_only=True):
    """No ``ids``: the whole namespace, with all that it learned."""

    ids: list[str] | None = None
    model: Made = None
    fingerprint: Annotated[str | None, Meta(description="Of a model that was served before, as the stats show it.")] = (
        None
    )


class SemanticDeleted(msgspec.Struct):
    """How many entries went."""

    deleted: int


_store = msgspec.json.Decoder(SemanticStore)
_lookup = msgspec.json.Decoder(SemanticLookup)
_feedback = msgspec.json.Decoder(SemanticFeedback)
_delete = msgspec.json.Decoder(SemanticDelete)
_encode = msgspec.json.Encoder().encode


class SemanticRoutes:
    """The four routes over one cache. Tenants are API keys: what one stored, no other finds."""

    def __init__(self, gateway: Gateway, shared: SharedSemantic) -> None:
        self._gateway = gateway
        self._shared = shared
        self._cache = shared.cache

    def routes(self) -> list[Route]:
        kept = {"text": "How warm is the sea?", "payload": {"answer": "18 degrees"}}
        asked, said = {"text": "What temperature has the sea?", "threshold": 0.8}, {"id": "an id", "right": True}
        rows: tuple[tuple[str, str, Handler, str, type, type, object], ...] = (
            ("POST", "/store", self.store, "Keep a payload under a text", SemanticStore, SemanticStored, kept),
            ("POST", "/lookup", self.lookup, "Find what means the same", SemanticLookup, SemanticFound, asked),
            (
                "POST",
                "/feedback",
                self.feedback,
                "Say whether an answer was right",
                SemanticFeedback,
                SemanticLearned,
                said,
            ),
            (
                "DELETE",
                "/{namespace}",
                self.delete,
                "Forget entries or a namespace",
                SemanticDelete,
                SemanticDeleted,
                {},
            ),
        )
        return [
            Route(method, PATH + path, Api.OPENAI, handler, words, takes=takes, gives=gives, example=example)
            for method, path, handler, words, takes, gives, example in rows
        ]

    async def store(self, request: Request) -> Reply:
        """Raises InvalidInput, PayloadTooLarge, and what embedding raises."""
        body = await self._gateway.read(request, _store)
        if body.namespace in _TAKEN:
            raise InvalidInput(f"a namespace can not be called {body.namespace!r}", param="namespace")
        payload = bytes(body.payload)
        try:
            # A part that is taken raw is not looked at, and would spoil every reply that it is in.
            payload.decode()
        except UnicodeDecodeError as error:
            raise NotJson(f"the payload is not valid UTF-8: byte {payload[error.start]:#04x} is out of place") from None
        namespace = self._namespace(request, body)
        item = Item(vector=NO_VECTOR, payload=payload, text=body.text, ttl_s=body.ttl_s, id=body.id)
        # Before a text is embedded: what is refused should cost no forward pass.
        self._cache.directory.check_store(namespace, item, self._dims(body))
        vector = await self._vector(request, body)
        stored = self._shared.store(namespace, msgspec.structs.replace(item, vector=vector))
        return Reply(_encode(SemanticStored(stored)))

    async def lookup(self, request: Request) -> Reply:
        """With a promise, among what this instance keeps; without, where that is no hit, among what others told of.
        Raises InvalidInput, and what embedding raises."""
        body = await self._gateway.read(request, _lookup)
        namespace = self._namespace(request, body)
        promise = None if body.max_error is None else Promise(body.max_error, body.confidence)
        self._cache.directory.check_lookup(namespace, self._dims(body), body.k, body.text, promise)
        vector = await self._vector(request, body)
        if promise is None:
            found = await self._shared.lookup(namespace, vector, body.threshold, body.k)
        else:
            found = self._cache.lookup_verified(namespace, vector, promise, body.k, body.text)
        return Reply(_encode(_shown(found)))

    async def feedback(self, request: Request) -> Reply:
        """Raises InvalidInput for an id that is not known."""
        body = await self._gateway.read(request, _feedback)
        learned = self._cache.feedback(self._namespace(request, body), body.id, body.right)
        return Reply(_encode(SemanticLearned(learned)))

    async def delete(self, request: Request) -> Reply:
        """With no body, the whole namespace. Raises ServiceError where a disk does not confirm it."""
        name = request.path.removeprefix(f"{PATH}/")
        body = await self._gateway.read_or(request, _delete, SemanticDelete())
        model = self._gateway.service.model
        made = body.model if body.fingerprint is None else None
        namespace = Namespace.of(request.tenant, name, made, body.fingerprint or model.fingerprint)
        # Of vectors that a caller or a former model made we know no length.
        dims = model.dims if body.model is None and body.fingerprint is None else None
        return Reply(_encode(SemanticDeleted(await self._shared.delete(namespace, body.ids, dims))))

    def _namespace(self, request: Request, body: SemanticStore | SemanticLookup | SemanticFeedback) -> Namespace:
        return Namespace.of(request.tenant, body.namespace, body.model, self._gateway.service.model.fingerprint)

    def _dims(self, body: SemanticStore | SemanticLookup) -> int:
        """Of the vector that is given, or of the one that is to be computed."""
        return self._gateway.service.model.dims if body.vector is None else len(body.vector)

    async def _vector(self, request: Request, body: SemanticStore | SemanticLookup) -> Vector:
        if body.vector is not None:
            # Numbers beyond float32 become infinite, and are refused as such.
            with np.errstate(over="ignore"):
                return np.array(body.vector, np.float32)
        if not body.text:
            raise InvalidInput("give a `text` to embed, or a `vector`", param="text")
        wanted = EmbedRequest(inputs=[body.text], normalize=True, timeout_s=self._gateway.options.request_timeout_s)
        result = await self._gateway.embed(request, wanted)
        return np.asarray(result.rows[0], np.float32)


def _shown(found: Lookup) -> SemanticFound:
    candidate = None if found.candidate is None else _hit(found.candidate)
    shown: list[SemanticHit] = []
    left = _REPLY_BYTES
    for hit in found.hits:
        left -= len(hit.payload)
        if left < 0 and shown:
            break  # the farther ones: a hundred payloads of a megabyte are no reply
        shown.append(_hit(hit))
    return SemanticFound(shown, found.threshold, found.lookup_id, found.audit, candidate)


def _hit(hit: Hit) -> SemanticHit:
    return SemanticHit(hit.id, hit.similarity, msgspec.Raw(hit.payload), hit.age_s, hit.text)
