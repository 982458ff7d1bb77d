"""The contract of a worker: one device with one backend, computing ``slots`` batches side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import Outcome, TokenBatch


class Done(msgspec.Struct, frozen=True):
    """How a batch ended: ``rows`` float32 [n, dims] ([n, s, hidden] for tokens), or None and ``error``, a sentence."""

    outcome: Outcome
    rows: NDArray[np.float32] | None = None
    error: str | None = None


class Worker(Protocol):
    """Takes batches, calls back when each has ended. It never raises for a batch: a failure is a ``Done``."""

    device_id: str
    slots: int

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        """Queue a batch; ``on_done`` is called once, from any thread."""
        ...

    def close(self) -> None:
        """Finish what is queued, then free the device. Blocks."""
        ...
