"""What a simulation is asked: requests with their times and lengths, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError

Times: TypeAlias = NDArray[np.float64]
"""Seconds, ascending, float64 [n]."""
Lengths: TypeAlias = NDArray[np.int64]
"""Tokens of each request's text, special ones included, int64 [n]."""


class Workload(msgspec.Struct, frozen=True):
    """Requests of one text each, and in words where they are from. Times begin near 0."""

    times_s: Times
    lengths: Lengths
    source: str

    def __post_init__(self) -> None:
        if len(self.times_s) != len(self.lengths):
            raise ConfigError(f"{self.source}: {len(self.times_s)} times and {len(self.lengths)} lengths")
        if not len(self.times_s):
            raise ConfigError(f"{self.source}: there is no request in it")

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def rate(self) -> float:
        """Requests a second, on average; 0 when all come at once."""
        span_s = float(self.times_s[-1])
        return len(self) / span_s if span_s > 0 else 0.0

    def at(self, rate: float) -> Workload:
        """The same requests, time stretched or squeezed to ``rate`` a second. Raises ConfigError unless over 0."""
        if not rate > 0 or not np.isfinite(rate):
            raise ConfigError(f"a rate must be over 0 requests a second, got {rate:g}")
        return msgspec.structs.replace(self, times_s=self.times_s * (self.rate / rate))

    def clipped(self, most: int) -> Workload:
        """Texts cut at ``most`` tokens, as a model that takes no more does."""
        return msgspec.structs.replace(self, lengths=np.clip(self.lengths, 1, most))


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """How to draw a workload. ``requests``: how many, None for as many as a trace has; ``lengths``: a name of
    ``lengths.TABLES`` or a number, for arrivals that bring no lengths of their own; ``cv``: the coefficient of
    variation of the gaps of bursty arrivals; ``data``: the folder of the recorded traces; ``longest``: what the model
    takes, to which prompts of language models are scaled."""

    requests: int | None = None
    lengths: str = "questions"
    cv: float = 4.0
    seed: int = 0
    data: Path | None = None
    longest: int = 512

    def __post_init__(self) -> None:
        if self.requests is not None and self.requests < 1:
            raise ConfigError(f"a simulation needs at least one request, got {self.requests}")
        if not self.cv > 0:
            raise ConfigError(f"a coefficient of variation must be over 0, got {self.cv:g}")


Arrivals: TypeAlias = Callable[[Draw], Workload]
"""A way of drawing requests. The same draw gives the same workload. Raises ConfigError when the data are not there."""
