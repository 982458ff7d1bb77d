"""What the three APIs share: how a body is read, which model names are ours, and the one call into the engine."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tandem.clock import Clock
from tandem.errors import UnknownModel
from tandem.server.base import Service
from tandem.server.inputs import OwnFields, decode
from tandem.server.options import ServerOptions
from tandem.server.readiness import Readiness
from tandem.server.request import BodyPool, Limits, Request
from tandem.telemetry import Metrics
from tandem.types import EmbedRequest, EmbedResult, Source

T = TypeVar("T")

_POOL_BODIES, _POOL_BYTES = 16, 256 * 1024 * 1024
"""Bodies being read hold at most the larger of so many of the longest ones and so many bytes."""


class Gateway:
    """One per server."""

    def __init__(
        self, service: Service, options: ServerOptions, readiness: Readiness, metrics: Metrics, clock: Clock
    ) -> None:
        self.service = service
        self.options = options
        self.max_items = options.max_batch_items
        self._readiness = readiness
        self._metrics = metrics
        self._clock = clock
        self._limits = Limits(
            options.max_body_bytes,
            options.body_read_timeout_s,
            BodyPool(max(_POOL_BODIES * options.max_body_bytes, _POOL_BYTES)),
        )
        # Every name that a request may use; the first is the one that replies carry.
        self.names = tuple(dict.fromkeys((*options.served_model_names, service.model.id, *service.model.aliases)))
        self.model_id = self.names[0]

    async def read(self, request: Request, decoder: msgspec.json.Decoder[T]) -> T:
        """The body as the decoder's type; raises NotJson, InvalidInput and what ``Request.body`` raises."""
        try:
            return decode(decoder, await request.body(self._limits))
        finally:
            self._limits.pool.give_back(request.body_bytes)

    async def read_or(self, request: Request, decoder: msgspec.json.Decoder[T], default: T) -> T:
        """The same where there may be no body."""
        try:
            body = await request.body(self._limits)
            return decode(decoder, body) if body else default
        finally:
            self._limits.pool.give_back(request.body_bytes)

    def check_model(self, name: str | None) -> None:
        """Raises UnknownModel. No name means the model that is served."""
        if name is not None and name not in self.names:
            raise UnknownModel(f"the model {name[:200]!r} is not served here; {self.model_id!r} is", param="model")

    def timeout_s(self, fields: OwnFields) -> float | None:
        """The request's own deadline, else the server's."""
        return fields.timeout_or(self.options.request_timeout_s)

    async def embed(self, request: Request, wanted: EmbedRequest) -> EmbedResult:
        """Ask the engine. Raises its errors, NotReady while it starts, and ClientLeft when no one waits any more."""
        self._readiness.require_started()
        if request.tenant and self.options.cache_tenants == "key":
            wanted = msgspec.structs.replace(wanted, tenant=request.tenant)
        # What memory has is there in microseconds: nothing to watch over, and no device whose health it shows.
        answer = self.service.ask(wanted)
        if isinstance(answer, EmbedResult):
            result = answer
        else:
            with request.watch():
                result = await answer
            self._readiness.succeeded()
            self._metrics.stages(result.times)
        request.texts = len(wanted.inputs)
        request.tokens = sum(result.token_counts)
        request.computed_s = self._clock.now()
        if result.sources is not None:
            request.source = _worst(result.sources)
            request.similarity = result.similarity
        return result


_ORDER = tuple(Source)
_NAMES = {source: source.value.encode() for source in Source}


def _worst(sources: list[Source]) -> bytes:
    """Of a list, where its dearest text came from."""
    if len(sources) == 1:
        return _NAMES[sources[0]]
    return _NAMES[max(set(sources), key=_ORDER.index)]
