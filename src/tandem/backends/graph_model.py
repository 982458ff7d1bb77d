"""A loaded model as a graph that an engine can run: built from its weights, or the repository's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import Graph, GraphModel
from tandem.backends.graph import input_names, write_onnx
from tandem.backends.graph_blocks import Tensors
from tandem.backends.pooling import Pooler
from tandem.errors import BackendFailed
from tandem.models.description import EncoderDescription
from tandem.models.loaded import LoadedModel
from tandem.models.own_graph import OwnGraph
from tandem.types import Output, Packing, TokenBatch


def graph_model(model: LoadedModel) -> GraphModel:
    """The model for an engine. Nothing is built before the engine asks, and nothing is kept after."""
    return built_model(model.description, model.weights) if model.own_graph is None else _own(model, model.own_graph)


def built_model(d: EncoderDescription, weights: Tensors) -> GraphModel:
    """The graphs that Tandem builds. Two ways to pool: a model that pools its first token alone does so in the graph,
    whose last layer then runs for that token only (12 % of six layers); any other pools on the host, and its batches
    are packed."""
    states = _graph(d, weights, Output.TOKENS)
    in_graph = d.pooling == ("cls",) and not d.skips_prompt
    pooler = Pooler(d, weights)

    def finish(result: NDArray[np.float32], batch: TokenBatch) -> NDArray[np.float32]:
        return result if in_graph or batch.output is Output.TOKENS else pooler(result, batch)

    return GraphModel(
        graphs={Output.TOKENS: states, Output.POOLED: _graph(d, weights, Output.POOLED) if in_graph else states},
        finish=finish,
        dims=d.dims,
        hidden=d.hidden,
        packing=Packing.ONE_A_ROW if in_graph else Packing.ROWS,
        description=d,
        weights=weights,
    )


def _graph(d: EncoderDescription, weights: Tensors, output: Output) -> Graph:
    @contextmanager
    def build() -> Iterator[Path]:
        with TemporaryDirectory(prefix="tandem-graph-") as folder:
            yield write_onnx(d, weights, Path(folder) / "model.onnx", output)[0]

    return Graph(build=build, inputs=input_names(d, output))


def _own(model: LoadedModel, own: OwnGraph) -> GraphModel:
    """A graph that someone else built is run as it is, one text a row."""
    pooler = Pooler(model.description, model.weights)

    def finish(result: NDArray[np.float32], batch: TokenBatch) -> NDArray[np.float32]:
        if batch.output is Output.POOLED:
            return result if own.pooled else pooler(result, batch)
        if own.pooled:
            raise BackendFailed(f"{own.path.name} gives one vector a text; token rows are not to be had from it")
        return result

    graph = Graph(build=lambda: nullcontext(own.path), inputs=own.inputs, wide=own.wide, result=own.result)
    return GraphModel(
        graphs=dict.fromkeys(Output, graph),
        finish=finish,
        dims=own.hidden if own.pooled else model.description.dims,
        hidden=own.hidden,
    )
