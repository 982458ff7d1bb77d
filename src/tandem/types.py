"""Plain words that every floor uses: enums and frozen structs, no behaviour beyond parsing.

Units are in the names: ``*_s`` seconds, ``*_bytes`` bytes. Shapes: n texts, s positions (padded), d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


class CacheMode(StrEnum):
    """What may answer a text beside the model: nothing; the same text's row; a near-duplicate's row as well."""

    OFF = "off"
    EXACT = "exact"
    NEAR = "near"


class Source(StrEnum):
    """Where a text's row came from, the cheapest first. ``MISS``: the model, asked by this request or by another at the
    same time."""

    L1 = "l1"
    L2 = "l2"
    NEAR = "near-duplicate"
    MISS = "miss"


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One caller's request, whatever API it came through.

    ``inputs`` are texts, or lists of the model's own token ids. ``normalize`` None means what the model's files say.
    ``truncate`` None means the server's ``auto_truncate``. ``prompt`` is literal text put before each input and wins
    over ``prompt_name``, a key of the model's prompts. Cached rows of one ``tenant`` are never another's.
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
    tenant: str = ""
    cache: CacheMode = CacheMode.EXACT


class StageTimes(msgspec.Struct, frozen=True):
    """Where a request's time went, in seconds. Queue and infer are the means over its texts."""

    tokenize_s: float
    queue_s: float
    infer_s: float
    total_s: float


class EmbedResult(msgspec.Struct, frozen=True):
    """``rows`` float32 [n, d]; for ``Output.TOKENS`` one [tokens_i, hidden] array a text. ``token_counts`` has n.

    ``sources`` has n, or is None where no cache was asked. ``similarity``: the least cosine that the near-duplicates
    among the rows are predicted to have to the true ones; None where there are none.
    """

    rows: Rows | list[Rows]
    token_counts: list[int]
    times: StageTimes
    sources: list[Source] | None = None
    similarity: float | None = None


class Packing(StrEnum):
    """How a device's batches lie: one text a row, padded; several texts in rows of one width; or one row as long as
    its texts, without padding."""

    ONE_A_ROW = "one-a-row"
    ROWS = "rows"
    FLAT = "flat"


class TokenBatch(msgspec.Struct, frozen=True):
    """What a device runs: ``ids`` int32 [rows, s] padded on the right, ``lengths`` int32 [n] with 1 <= length <= s.

    ``places`` int32 [n]: where each text begins in ``ids.ravel()``; a text lies within one row, and a row may hold
    several. None when text i is row i, from its first place on; then rows = n.
    ``skips`` int32 [n]: how many leading tokens pooling leaves out (a prompt under ``include_prompt: false``);
    None when no text skips any.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    skips: NDArray[np.int32] | None = None
    output: Output = Output.POOLED
    places: NDArray[np.int32] | None = None

    def starts(self) -> NDArray[np.int32]:
        """``places``, also where it is None."""
        width = self.ids.shape[1]
        return np.arange(0, self.ids.size, width, dtype=np.int32) if self.places is None else self.places

    def segments(self) -> NDArray[np.int32]:
        """int32 like ``ids``: 1 + the index of the text that a place belongs to, 0 for padding."""
        found = np.zeros(self.ids.size, np.int32)
        for index, (start, length) in enumerate(zip(self.starts().tolist(), self.lengths.tolist(), strict=True), 1):
            found[start : start + length] = index
        return found.reshape(self.ids.shape)

    def positions(self) -> NDArray[np.int32]:
        """int32 like ``ids``: each token's position in its own text; 0 for padding."""
        found = np.zeros(self.ids.size, np.int32)
        upward = np.arange(self.ids.shape[1], dtype=np.int32)
        for start, length in zip(self.starts().tolist(), self.lengths.tolist(), strict=True):
            found[start : start + length] = upward[:length]
        return found.reshape(self.ids.shape)

    def texts(self) -> Iterator[NDArray[np.int32]]:
        """The ids of each text, unpadded."""
        flat = self.ids.ravel()
        for start, length in zip(self.starts().tolist(), self.lengths.tolist(), strict=True):
            yield flat[start : start + length]


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
