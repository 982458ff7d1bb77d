"""TEI's ``/tokenize`` and ``/decode``: the tokenizer alone, no forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from tandem.errors import InvalidInput
from tandem.models.tokenizer import Piece
from tandem.server.base import Api, Reply
from tandem.server.gateway import Gateway
from tandem.server.inputs import as_inputs, check_count, check_texts
from tandem.server.request import Request
from tandem.server.routing import Route
from tandem.server.tei_types import TeiDecodeRequest, TeiTokenizeRequest

A = TypeVar("A")
B = TypeVar("B")

_tokenize = msgspec.json.Decoder(TeiTokenizeRequest)
_decode = msgspec.json.Decoder(TeiDecodeRequest)
_encode = msgspec.json.Encoder().encode


class TokenRoutes:
    """The tokenizer's routes. They run in a thread: Rust lets go of the GIL, so the event loop goes on."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

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

        def run(text: str) -> bytes:
            return _encode(tokenizer.tokenize(prompt + text, add_special_tokens=body.add_special_tokens))

        return Reply(b"[" + b",".join(await _in_thread(run, texts)) + b"]")

    async def decode(self, request: Request) -> Reply:
        """The texts of token ids."""
        body = await self._gateway.read(request, _decode)
        given = as_inputs(cast("list[str | int | list[int]]", body.ids), param="ids", max_items=self._gateway.max_items)
        tokenizer = self._gateway.service.tokenizer

        def run(ids: list[int]) -> str:
            return tokenizer.decode(ids, skip_special_tokens=body.skip_special_tokens)

        return Reply(_encode(await _in_thread(run, cast("list[list[int]]", given))))

    def _prompt(self, name: str | None) -> str:
        model = self._gateway.service.model
        name = name if name is not None else model.default_prompt_name
        if name is None:
            return ""
        if name not in model.prompts:
            known = ", ".join(sorted(model.prompts)) or "none"
            raise InvalidInput(f"the model has no prompt {name!r}; its prompts are: {known}", param="prompt_name")
        return model.prompts[name]


async def _in_thread(run: Callable[[A], B], items: list[A]) -> list[B]:
    return await asyncio.to_thread(lambda: [run(item) for item in items])
