"""From a request's inputs to token ids: prompts, checks, and where the tokenizer runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import msgspec

from tandem.errors import InvalidInput
from tandem.models.tokenizer import Encoded, TextTokenizer
from tandem.models.tokenizer_checks import check_strings
from tandem.types import EmbedRequest, Tier, TokenIds

# A text of this many characters tokenizes in the time that a hop to a thread and back takes, about 100 microseconds.
_INLINE_CHARS = 600
# So many ids are framed and hashed in under a millisecond, in Python: a thread would only hop and hold the GIL there.
_INLINE_IDS = 8192
# A text of this size may be one word of megabytes, which takes seconds whole: such texts wait for each other and not
# everybody else for them.
_HUGE_CHARS = 200_000


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is served. ``max_tokens`` counts special tokens; ``normalize`` is what the model's files say."""

    id: str
    aliases: tuple[str, ...]
    dims: int
    hidden: int
    max_tokens: int
    tier: Tier
    device: str
    backend: str
    pooling: str
    normalize: bool
    prompts: dict[str, str]
    default_prompt_name: str | None
    fingerprint: str
    source: str
    dtype: str


class Intake:
    """Checks a request against the model and tokenizes it."""

    def __init__(self, model: ModelInfo, tokenizer: TextTokenizer, auto_truncate: bool, threads: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._auto_truncate = auto_truncate
        self._threads = ThreadPoolExecutor(threads, "tandem-tokenizer")
        self._slow = ThreadPoolExecutor(1, "tandem-tokenizer-huge")

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        self._slow.shutdown(wait=False, cancel_futures=True)

    async def encode(self, request: EmbedRequest) -> Encoded:
        """Token ids of the inputs; short ones here, long ones in a thread that the GIL does not hold."""
        work, is_short = self._work(request)
        if is_short:
            return work()
        lane = self._slow if max(map(len, request.inputs)) > _HUGE_CHARS else self._threads
        return await asyncio.get_running_loop().run_in_executor(lane, work)

    def encode_now(self, request: EmbedRequest) -> Encoded | None:
        """The same at once; None for what takes long enough to hold up the event loop. Raises RequestError."""
        work, is_short = self._work(request)
        return work() if is_short else None

    def _work(self, request: EmbedRequest) -> tuple[Callable[[], Encoded], bool]:
        """What is to be done, and whether that is short."""
        self.check(request)
        inputs = request.inputs
        direction = request.truncation_direction
        prompt, truncate = self.terms(request)
        if isinstance(inputs[0], str):
            texts = cast("Sequence[str]", inputs)
            check_strings(texts)
            is_short = len(prompt) * len(texts) + sum(map(len, texts)) <= _INLINE_CHARS
            work = partial(self._tokenizer.encode, texts, prompt=prompt, truncate=truncate, direction=direction)
        else:
            rows = cast("Sequence[TokenIds]", inputs)
            _check_rows(rows)
            is_short = len(prompt) <= _INLINE_CHARS and sum(map(len, rows)) <= _INLINE_IDS
            work = partial(self._tokenizer.from_ids, rows, prompt=prompt, truncate=truncate, direction=direction)
        return work, is_short

    def check(self, request: EmbedRequest) -> None:
        """What is wrong whatever the inputs are. Raises InvalidInput."""
        wanted = request.dimensions
        if wanted is not None and not 1 <= wanted <= self._model.dims:
            raise InvalidInput(f"dimensions must be from 1 to {self._model.dims}, got {wanted}", param="dimensions")
        if not len(request.inputs):
            raise InvalidInput("there is no input", param="input")

    def terms(self, request: EmbedRequest) -> tuple[str, bool]:
        """The prompt that goes before each input, and whether over-long ones are cut. Raises InvalidInput."""
        return self._prompt(request), self._auto_truncate if request.truncate is None else request.truncate

    def _prompt(self, request: EmbedRequest) -> str:
        if request.prompt is not None:
            return request.prompt
        name = request.prompt_name or self._model.default_prompt_name
        if not name:
            return ""
        prompt = self._model.prompts.get(name)
        if prompt is None:
            known = ", ".join(sorted(self._model.prompts)) or "none"
            raise InvalidInput(f"prompt_name {name!r} is not one of the model's prompts: {known}", param="prompt_name")
        return prompt


def _check_rows(rows: Sequence[object]) -> None:
    """Raise InvalidInput for the first item that is no list. What is in them the tokenizer checks."""
    if set(map(type, rows)) <= {list, tuple}:
        return
    for index, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            kind = type(row).__name__
            raise InvalidInput(
                f"input {index} is of type {kind}; an input is a text, or all are lists of token ids", index=index
            )
