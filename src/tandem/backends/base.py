"""The contract of a backend: one model on one device, one call, one family of errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.models.description import EncoderDescription
from tandem.types import Output, Packing, Tier, TokenBatch


class Backend(Protocol):
    """``dims`` is the width of a pooled row, ``hidden`` that of a token's. ``streams`` batches may run at once, each
    from a thread of its own. ``packing``: how pooled batches should lie; with FLAT, batches for tokens too."""

    name: str
    tier: Tier
    dims: int
    hidden: int
    streams: int
    packing: Packing

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Pooled rows [n, dims], not normalised; for ``Output.TOKENS`` [n, s, hidden], where positions past a text's
        length mean nothing. The array is the caller's own. May raise anything; the worker answers for it."""
        ...

    def close(self) -> None:
        """Free the model. Idempotent."""
        ...


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """One graph. ``build`` gives it as a file (ONNX, or OpenVINO's XML) that is there until the context ends: an engine
    maps its weights from it, and serialised in memory they would be there twice.

    ``inputs`` are those it takes, of ``INPUTS``; int32, or int64 where ``wide``. ``result`` names the output to take.
    """

    build: Callable[[], AbstractContextManager[Path]]
    inputs: tuple[str, ...]
    wide: bool = False
    result: str = "rows"

    def feeds(self, batch: TokenBatch) -> dict[str, NDArray[np.int32] | NDArray[np.int64]]:
        """The arrays for ``inputs``, by name."""
        arrays = {name: INPUTS[name](batch) for name in self.inputs}
        return {name: array.astype(np.int64) for name, array in arrays.items()} if self.wide else dict(arrays)


class GraphModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model for engines that run graphs: the graph for each output, the same object where one serves both, and
    ``finish``, which makes of its float32 result what ``Backend.run`` returns. ``packing`` as
    ``Backend.packing``. ``description`` and ``weights`` (``tensor_shapes`` names them): what Tandem built the graphs
    from, for an engine that lowers the model in its own way; None for a graph that the repository brought."""

    graphs: dict[Output, Graph]
    finish: Callable[[NDArray[np.float32], TokenBatch], NDArray[np.float32]]
    dims: int
    hidden: int
    packing: Packing = Packing.ONE_A_ROW
    description: EncoderDescription | None = None
    weights: Mapping[str, NDArray[Any]] | None = None


CPU_DEVICE = "cpu"


class BackendOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``threads`` of the device in all, shared by ``streams``. ``kernel_cache``: prepared kernels kept a stream, which
    bounds the memory that a variety of shapes takes. ``device``: where it runs, as ``cpu`` or ``cuda:0``.
    ``memory_fraction`` of a GPU's memory, or ``memory_bytes`` where not 0, is all that it may take there."""

    tier: Tier = Tier.FP32
    threads: int = 1
    streams: int = 1
    kernel_cache: int = 5000
    device: str = CPU_DEVICE
    memory_fraction: float = 0.9
    memory_bytes: int = 0


def _mask(batch: TokenBatch) -> NDArray[np.int32]:
    mask: NDArray[np.int32] = (np.arange(batch.ids.shape[1]) < batch.lengths[:, None]).astype(np.int32)
    return mask


INPUTS: dict[str, Callable[[TokenBatch], NDArray[np.int32]]] = {
    "input_ids": lambda batch: batch.ids,
    "lengths": lambda batch: batch.lengths,
    "skips": lambda batch: np.zeros_like(batch.lengths) if batch.skips is None else batch.skips,
    "attention_mask": _mask,
    "token_type_ids": lambda batch: np.zeros_like(batch.ids),
    "segments": TokenBatch.segments,
    "positions": TokenBatch.positions,
    "position_ids": lambda batch: np.tile(np.arange(batch.ids.shape[1], dtype=np.int32), (len(batch.lengths), 1)),
}
"""Every input that a graph may have, and what a batch feeds it; the last three and the mask take one text a row."""
