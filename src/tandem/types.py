"""Plain words that every floor uses: enums and frozen structs, no behaviour beyond parsing.

Units are in the names: ``*_s`` seconds, ``*_bytes`` bytes. Shapes: n texts, s positions (padded), d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]
"""Embeddings, float32 [n, d]."""

TokenIds: TypeAlias = list[int]
"""One text as the model sees it, special tokens included."""


class Tier(StrEnum):
    """A precision tier: the contract on how far a vector may be from the fp32 reference."""

    FP32 = "fp32"
    BF16 = "bf16"


class Priority(IntEnum):
    """A request's class; the smaller number goes first."""

    CRITICAL = 0
    NORMAL = 1
    BACKGROUND = 2

    @classmethod
    def parse(cls, name: str) -> Priority:
        """``critical``, ``normal`` or ``background``; raises KeyError for anything else."""
        return cls[name.upper()]


class Direction(StrEnum):
    """The end at which an over-long text is cut."""

    RIGHT = "right"
    LEFT = "left"


class Output(StrEnum):
    """What a forward pass returns: one row a text, or one row a token."""

    POOLED = "pooled"
    TOKENS = "tokens"


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One caller's request, whatever API it came through.

    ``inputs`` are texts, or lists of the model's own token ids. ``normalize`` None means what the model's files say.
    ``truncate`` None means the server's ``auto_truncate``. ``prompt`` is literal text put before each input and wins
    over ``prompt_name``, a key of the model's prompts.
    """

    inputs: Sequence[str] | Sequence[TokenIds]
    prompt_name: str | None = None
    prompt: str | None = None
    truncate: bool | None = None
    truncation_direction: Direction = Direction.RIGHT
    normalize: bool | None = None
    dimensions: int | None = None
    priority: Priority = Priority.NORMAL
    timeout_s: float | None = None
    output: Output = Output.POOLED


class StageTimes(msgspec.Struct, frozen=True):
    """Where a request's time went, in seconds. Queue and infer are the means over its texts."""

    tokenize_s: float
    queue_s: float
    infer_s: float
    total_s: float


class EmbedResult(msgspec.Struct, frozen=True):
    """``rows`` float32 [n, d]; for ``Output.TOKENS`` one [tokens_i, hidden] array a text. ``token_counts`` has n."""

    rows: Rows | list[Rows]
    token_counts: list[int]
    times: StageTimes


class TokenBatch(msgspec.Struct, frozen=True):
    """What a device runs: ``ids`` int32 [n, s] padded on the right, ``lengths`` int32 [n] with 1 <= length <= s.

    ``skips`` int32 [n]: how many leading tokens pooling leaves out (a prompt under ``include_prompt: false``);
    None when no text skips any.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    skips: NDArray[np.int32] | None = None
    output: Output = Output.POOLED


class Outcome(msgspec.Struct, frozen=True):
    """One batch as it happened, for the cost model, policies and metrics."""

    device_id: str
    n: int
    tokens: int
    padded_tokens: int
    sum_squares: int
    started_s: float
    finished_s: float
    ok: bool = True

    @property
    def seconds(self) -> float:
        return self.finished_s - self.started_s
