"""The contracts of the server: ASGI in five aliases, a reply, whose shape it has, and what is asked of an engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

import msgspec

from tandem.caching.report import CacheReport
from tandem.models.tokenizer import Piece
from tandem.types import EmbedRequest, EmbedResult, Tier

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = b"application/json"
COMPLETE = "tandem.complete"
"""In a scope: the body, where all of it came with the headers. Other servers do not say so."""

WHOLE = "tandem.whole"
"""In a scope: a ``WholeReply``."""

WholeReply: TypeAlias = Callable[[int, bytes, bytes], bool]
"""Sends status, header lines and body at once; False when that can not be, and nothing was sent."""


class Api(StrEnum):
    """Whose shape a route speaks."""

    OPENAI = "openai"
    TEI = "tei"
    COHERE = "cohere"


class Reply(msgspec.Struct):
    """What a handler answers with. ``headers`` are those beside content type, length and request id.

    ``parts`` follow ``body`` in replies that are too long to be joined: each is sent, and let go, by itself.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = []
    parts: list[bytes] = []


class ServedModel(Protocol):
    """What the routes tell of the model. ``max_tokens`` counts special tokens."""

    @property
    def id(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...
    @property
    def dims(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def tier(self) -> Tier: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def pooling(self) -> str: ...
    @property
    def prompts(self) -> Mapping[str, str]: ...
    @property
    def default_prompt_name(self) -> str | None: ...
    @property
    def fingerprint(self) -> str: ...


class Tokenizer(Protocol):
    """The model's tokenizer, for the routes that show tokens."""

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[Piece]: ...
    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...


class Caches(Protocol):
    """An engine's caches of rows."""

    def report(self) -> CacheReport: ...
    async def clear(self) -> None: ...


class Backlog(Protocol):
    """What waits for a device."""

    @property
    def queued_texts(self) -> int: ...
    @property
    def queued_tokens(self) -> int: ...


class Service(Protocol):
    """An engine as the server uses it. It raises errors of the tree, and ``CancelledError`` when it is cancelled."""

    @property
    def model(self) -> ServedModel: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def recall(self) -> Caches | None: ...
    async def start(self) -> None: ...
    def ask(self, request: EmbedRequest) -> EmbedResult | Coroutine[Any, Any, EmbedResult]: ...
    async def probe(self) -> None: ...
    async def drain(self) -> None: ...
    async def close(self, *, at_once: bool = False) -> None: ...
    def readiness(self) -> tuple[bool, str]: ...
    def backlog(self) -> Backlog: ...
