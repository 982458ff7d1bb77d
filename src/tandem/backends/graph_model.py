"""A loaded model as a graph that an engine can run."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

from tandem.backends.base import GraphModel
from tandem.backends.graph import build_onnx, input_names, write_onnx
from tandem.models.loaded import LoadedModel
from tandem.types import Output

# Protobuf ends at 2 GiB; past this, weights go to a file beside the graph.
_IN_MEMORY_BYTES = 1_500_000_000


def graph_model(model: LoadedModel) -> GraphModel:
    """The model lowered to ONNX, built anew each time an engine asks."""
    description = model.description

    def build(output: Output) -> bytes | Path:
        if sum(_bytes(shape) for shape in _shapes(model)) < _IN_MEMORY_BYTES:
            return build_onnx(description, model.weights, output)
        folder = Path(mkdtemp(prefix="tandem-graph-"))
        return write_onnx(description, model.weights, folder / "model.onnx", output)[0]

    return GraphModel(build=build, inputs=input_names(description), dims=description.dims, hidden=description.hidden)


def _shapes(model: LoadedModel) -> list[tuple[int, ...]]:
    from tandem.models.description import tensor_shapes

    return list(tensor_shapes(model.description).values())


def _bytes(shape: tuple[int, ...]) -> int:
    size = 4
    for extent in shape:
        size *= extent
    return size
