"""A backend without a model: vectors that depend on the token ids alone, and a time that follows a latency model.

For tests of everything above it, and for simulation. Deterministic: the same ids give the same vector in any company.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from threading import Event

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import Output, Packing, Tier, TokenBatch


class FakeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``fixed_s`` and ``token_s``: seconds a batch and a padded token. The rest are token ids whose presence does harm:
    ``poison`` makes a batch fail, ``memory`` makes it fail for want of memory, ``nan`` makes its own row not a number,
    ``hang`` makes the call never return, and ``crash`` ends the process by SIGKILL."""

    dims: int = 16
    streams: int = 1
    fixed_s: float = 0.0
    token_s: float = 0.0
    poison: int | None = None
    nan: int | None = None
    memory: int | None = None
    hang: int | None = None
    crash: int | None = None


class FakeBackend:
    """Sums a pseudo-random vector per token, weighted by position."""

    name = "fake"
    tier = Tier.FP32
    packing = Packing.ONE_A_ROW

    def __init__(self, options: FakeOptions | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.options = options or FakeOptions()
        self.dims = self.hidden = self.options.dims
        self.streams = self.options.streams
        self._sleep = sleep

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        o = self.options
        if seconds := o.fixed_s + o.token_s * batch.ids.size:
            self._sleep(seconds)
        self._harm(batch)
        tokens = self._token_rows(batch)
        if batch.output is Output.TOKENS:
            return tokens
        mask = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
        if batch.skips is not None:
            mask &= np.arange(batch.ids.shape[1]) >= batch.skips[:, None]
        rows: NDArray[np.float32] = (tokens * mask[:, :, None]).sum(axis=1, dtype=np.float32)
        if o.nan is not None:
            rows[(batch.ids == o.nan).any(axis=1)] = np.nan
        return rows

    def close(self) -> None:
        """Nothing to free."""

    def _harm(self, batch: TokenBatch) -> None:
        def holds(token: int | None) -> bool:
            return token is not None and bool((batch.ids == token).any())

        o = self.options
        if holds(o.poison):
            raise RuntimeError(f"token {o.poison} is poison")
        if holds(o.memory):
            raise MemoryError(f"no memory for token {o.memory}")
        if holds(o.hang):
            Event().wait()
        if holds(o.crash):
            os.kill(os.getpid(), signal.SIGKILL)

    def _token_rows(self, batch: TokenBatch) -> NDArray[np.float32]:
        n, s = batch.ids.shape
        turn = np.arange(1, self.dims + 1, dtype=np.float64)
        angle = batch.ids.reshape(n, s, 1) * turn * 0.37 + np.arange(s).reshape(1, s, 1) * 0.11
        return np.sin(angle).astype(np.float32)
