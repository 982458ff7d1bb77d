"""A loaded model as a graph that an engine can run: built from its weights, or the repository's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import GraphModel
from tandem.backends.graph import input_names, write_onnx
from tandem.errors import BackendFailed
from tandem.models.loaded import LoadedModel
from tandem.models.own_graph import OwnGraph
from tandem.models.reference import pool, project
from tandem.types import Output, TokenBatch


def graph_model(model: LoadedModel) -> GraphModel:
    """The model for an engine. Nothing is built before the engine asks, and nothing is kept after."""
    return _built(model) if model.own_graph is None else _own(model, model.own_graph)


def _built(model: LoadedModel) -> GraphModel:
    description = model.description

    @contextmanager
    def build(output: Output) -> Iterator[Path]:
        with TemporaryDirectory(prefix="tandem-graph-") as folder:
            yield write_onnx(description, model.weights, Path(folder) / "model.onnx", output)[0]

    return GraphModel(build=build, inputs=input_names(description), dims=description.dims, hidden=description.hidden)


def _own(model: LoadedModel, own: OwnGraph) -> GraphModel:
    """Pooling and dense heads in numpy: a graph that someone else built is run as it is."""
    d, weights = model.description, dict(model.weights)

    def finish(result: NDArray[np.float32], batch: TokenBatch) -> NDArray[np.float32]:
        if batch.output is Output.TOKENS:
            if own.pooled:
                raise BackendFailed(f"{own.path.name} gives one vector a text; token rows are not to be had from it")
            return result
        if not own.pooled:
            skips = np.zeros_like(batch.lengths) if batch.skips is None else batch.skips
            texts = zip(result, batch.lengths, skips, strict=True)
            result = np.stack([pool(d, states[:length], int(skip)) for states, length, skip in texts])
            result = project(d, weights, result)
        return np.ascontiguousarray(result, np.float32)

    return GraphModel(
        build=lambda output: nullcontext(own.path),
        inputs=own.inputs,
        dims=own.hidden if own.pooled else d.dims,
        hidden=own.hidden,
        wide=own.wide,
        result=own.result,
        finish=finish,
    )
