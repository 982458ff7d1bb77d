"""TEI's ``/tokenize`` and ``/decode``: the tokenizer alone, no forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import msgspec

from tandem.errors import InvalidInput, Overloaded, PayloadTooLarge
from tandem.models.tokenizer import Piece
from tandem.server.base import Api, Reply
from tandem.server.gateway import Gateway
from tandem.server.inputs import as_inputs, check_count, check_texts
from tandem.server.request import Request
from tandem.server.routing import Route
from tandem.server.tei_types import TeiDecodeRequest, TeiTokenizeRequest

A = TypeVar("A")
B = TypeVar("B")

MAX_SIZE = 1_000_000
"""Characters of text, prompts included, or token ids in one request. A token is shown in about 70 bytes."""

_tokenize = msgspec.json.Decoder(TeiTokenizeRequest)
_decode = msgspec.json.Decoder(TeiDecodeRequest)
_encode = msgspec.json.Encoder().encode


class TokenRoutes:
    """The tokenizer's routes. They run in a thread of their own: Rust lets go of the GIL, so the event loop goes on."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._thread = ThreadPoolExecutor(1, "tandem-tokens")
        self._running = 0

    def routes(self) -> list[Route]:
        """The two routes."""
        texts, ids = {"inputs": ["How warm is the sea?"]}, {"ids": [[101, 2129, 4010, 102]]}
        pieces = list[list[Piece]]
        return [
            Route(
                "POST", "/tokenize", Api.TEI, self.tokenize, "Cut texts into tokens", TeiTokenizeRequest, pieces, texts
            ),
            Route("POST", "/decode", Api.TEI, self.decode, "Token ids to text", TeiDecodeRequest, list[str], ids),
        ]

    async def tokenize(self, request: Request) -> Reply:
        """Each text's tokens, its prompt put before it, not truncated."""
        body = await self._gateway.read(request, _tokenize)
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        check_count(len(texts), param="inputs", max_items=self._gateway.max_items)
        check_texts(texts, param="inputs")
        prompt, tokenizer = self._prompt(body.prompt_name), self._gateway.service.tokenizer
        check_size(sum(map(len, texts)) + len(prompt) * len(texts), "characters", param="inputs")

        def run(text: str) -> bytes:
            return _encode(tokenizer.tokenize(prompt + text, add_special_tokens=body.add_special_tokens))

        return Reply(b"[" + b",".join(await self._in_thread(request, run, texts)) + b"]")

    async def decode(self, request: Request) -> Reply:
        """The texts of token ids."""
        body = await self._gateway.read(request, _decode)
        given = as_inputs(cast("list[str | int | list[int]]", body.ids), param="ids", max_items=self._gateway.max_items)
        check_size(sum(map(len, given)), "token ids", param="ids")
        tokenizer = self._gateway.service.tokenizer

        def run(ids: list[int]) -> str:
            return tokenizer.decode(ids, skip_special_tokens=body.skip_special_tokens)

        return Reply(_encode(await self._in_thread(request, run, cast("list[list[int]]", given))))

    async def _in_thread(self, request: Request, run: Callable[[A], B], items: list[A]) -> list[B]:
        """Raises Overloaded beyond ``max_concurrent_requests``, and ClientLeft; the items not begun are then left."""
        limit = self._gateway.options.max_concurrent_requests
        if self._running >= limit:
            raise Overloaded(f"{limit} requests for tokens are in work, the most there may be", retry_after_s=1.0)
        wanted = True
        self._running += 1
        try:
            with request.watch():
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, lambda: [run(item) for item in items if wanted]
                )
        finally:
            wanted = False
            self._running -= 1

    def _prompt(self, name: str | None) -> str:
        model = self._gateway.service.model
        name = name if name is not None else model.default_prompt_name
        if name is None:
            return ""
        if name not in model.prompts:
            known = ", ".join(sorted(model.prompts)) or "none"
            raise InvalidInput(f"the model has no prompt {name!r}; its prompts are: {known}", param="prompt_name")
        return model.prompts[name]


def check_size(size: int, what: str, *, param: str) -> None:
    """Raises PayloadTooLarge, naming the limit."""
    if size > MAX_SIZE:
        raise PayloadTooLarge(f"`{param}` has {size} {what}; at most {MAX_SIZE} are taken in one request", param=param)
