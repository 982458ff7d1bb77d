"""The contract of a backend: one model on one device, one call, one family of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import Output, Tier, TokenBatch


class Backend(Protocol):
    """``dims`` is the width of a pooled row, ``hidden`` that of a token's. ``streams`` batches may run at once, each
    from a thread of its own; one thread always uses the same stream."""

    name: str
    tier: Tier
    dims: int
    hidden: int
    streams: int

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Pooled rows [n, dims], not normalised; for ``Output.TOKENS`` [n, s, hidden], where positions past a text's
        length mean nothing. The array is the caller's own. May raise anything; the worker answers for it."""
        ...

    def close(self) -> None:
        """Free the model. Idempotent."""
        ...


class GraphModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as an ONNX graph, for engines that run graphs.

    ``build`` gives the graph for an output, serialised, or as a file where it is over 2 GiB. Its inputs are
    ``inputs``, in order, of ``input_ids`` int32 [n, s], ``lengths`` int32 [n] and ``skips`` int32 [n]; its one output
    is float32.
    """

    build: Callable[[Output], bytes | Path]
    inputs: tuple[str, ...]
    dims: int
    hidden: int


class BackendOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``threads`` of the device in all, shared by ``streams``. ``kernel_cache``: prepared kernels kept a stream, which
    bounds the memory that a variety of shapes takes."""

    tier: Tier = Tier.FP32
    threads: int = 1
    streams: int = 1
    kernel_cache: int = 5000


def feeds(inputs: Sequence[str], batch: TokenBatch) -> list[NDArray[np.int32]]:
    """The arrays for a graph's inputs; ``skips`` is zero where the batch has none."""
    skips = batch.skips if batch.skips is not None or "skips" not in inputs else np.zeros_like(batch.lengths)
    found = {"input_ids": batch.ids, "lengths": batch.lengths, "skips": skips}
    arrays = [found[name] for name in inputs]
    return [array for array in arrays if array is not None]
