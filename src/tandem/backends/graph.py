"""Lowers an encoder description to an ONNX graph.

For ``Output.TOKENS``, hidden states of packed rows. Inputs: ``input_ids``, ``segments`` and, for learned positions,
``positions``, each int32 [n, s] as ``TokenBatch`` gives them; s <= ``max_positions``. Output ``rows`` float32
[n, s, hidden], which means nothing where there is no text. Several texts in a row do not see each other.

For ``Output.POOLED``, with pooling and dense heads, one text a row. Inputs: ``input_ids`` int32 [n, s] padded on the
right with any valid id, ``lengths`` int32 [n] with 1 <= length <= s, and, where pooling leaves out prompts, ``skips``
int32 [n]. Output ``rows`` float32 [n, dims].

Folded at build time: token type 0 into the position table, 1/sqrt(head_dim) into the query weights, and query, key
and value into one product. Attention is MatMul, Add, Softmax, MatMul, the form that engines recognise and fuse. Where
only the first token is pooled, the last layer runs for it alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tandem.backends.graph_blocks import Build, Sight, Tensors, attention, first_place, mlp, norm
from tandem.backends.graph_places import first_rows, sights
from tandem.backends.graph_pooling import pool, project
from tandem.backends.graph_writer import GraphWriter, data_file_of
from tandem.models.description import EncoderDescription, NormPlacement, Positions
from tandem.types import Output


def build_onnx(description: EncoderDescription, weights: Tensors, output: Output = Output.POOLED) -> bytes:
    """The serialised model with its weights inside. Raises ValueError past protobuf's 2 GiB: see ``write_onnx``."""
    serialised: bytes = _lower(description, weights, output, GraphWriter()).SerializeToString()
    return serialised


def write_onnx(
    description: EncoderDescription, weights: Tensors, path: Path, output: Output = Output.POOLED
) -> tuple[Path, Path]:
    """Write the model to ``path`` and its weights to a data file beside it, of any size; returns both paths.

    A tensor is in memory only while it is written. Raises OSError when the disk is full.
    """
    data_path = data_file_of(path)
    with data_path.open("wb") as data:
        model = _lower(description, weights, output, GraphWriter(data, data_path.name))
    path.write_bytes(model.SerializeToString())
    return path, data_path


def input_names(description: EncoderDescription, output: Output = Output.POOLED) -> tuple[str, ...]:
    """The graph's inputs in order."""
    if output is Output.TOKENS:
        learned = description.positions is Positions.LEARNED
        return ("input_ids", "segments", "positions") if learned else ("input_ids", "segments")
    return ("input_ids", "lengths", "skips") if description.skips_prompt else ("input_ids", "lengths")


def _lower(d: EncoderDescription, weights: Tensors, output: Output, w: GraphWriter) -> onnx.ModelProto:
    w.scope = "embeddings"
    b = _begin(d, weights, w, output)
    seen = sights(b)
    x = _embed(b, output)
    for index, sight in enumerate(seen):
        w.scope = f"layers.{index}"
        last = index == len(seen) - 1
        x = _layer(b, index, x, sight, first_only=last and output is Output.POOLED and _pools_first(d))
    w.scope = "output"
    if d.norm_placement is NormPlacement.PRE:
        x = norm(b, "final.norm", x)
    return _finish(b, project(b, pool(b, x)) if output is Output.POOLED else x, output)


def _begin(d: EncoderDescription, weights: Tensors, w: GraphWriter, output: Output) -> Build:
    size = w.op("Shape", "input_ids", attributes={"start": 1, "end": 2})
    end = w.op("Cast", w.op("Squeeze", size, w.ints(0)), attributes={"to": TensorProto.INT32})
    places = w.op("Range", w.constant(np.int32(0)), end, w.constant(np.int32(1)))
    if output is Output.TOKENS:
        # A place sees those of its own text. Padding, segment 0, sees padding: a row of nothing but masked scores
        # would be no softmax.
        seeing, seen = w.op("Unsqueeze", "segments", w.ints(1, 3)), w.op("Unsqueeze", "segments", w.ints(1, 2))
        return Build(d, weights, w, size, places, w.op("Equal", seeing, seen))
    lengths = w.op("Unsqueeze", _lengths(d, w), w.ints(1))
    real = w.op("Less", w.op("Unsqueeze", places, w.ints(0)), lengths)
    return Build(d, weights, w, size, places, w.op("Unsqueeze", real, w.ints(1, 2)), lengths)


def _lengths(d: EncoderDescription, w: GraphWriter) -> str:
    """The input itself. Where there are skips, max(lengths, min(skips, lengths)), which is the same number: OpenVINO
    drops an input that nothing reads, and neither token rows nor the last token's row depend on skips."""
    return w.op("Max", "lengths", w.op("Min", "skips", "lengths")) if d.skips_prompt else "lengths"


def _embed(b: Build, output: Output) -> str:
    x = b.w.op("Gather", b.w.tensor("embeddings.token.weight", b.weights["embeddings.token.weight"]), "input_ids")
    kind = b.weights["embeddings.type.weight"][0] if b.d.token_types else np.zeros(b.d.hidden, np.float32)
    if b.d.positions is Positions.LEARNED:
        table = b.weights["embeddings.position.weight"][b.d.position_offset :] + kind
        rows = b.w.tensor("embeddings.position.weight", table)
        own = b.w.op("Gather", rows, "positions") if output is Output.TOKENS else first_rows(b, rows)
        x = b.w.op("Add", x, own)
    elif b.d.token_types:
        x = b.w.op("Add", x, b.w.tensor("embeddings.type.weight", kind))
    return norm(b, "embeddings.norm", x)


def _pools_first(d: EncoderDescription) -> bool:
    return d.pooling == ("cls",) and not d.skips_prompt


def _layer(b: Build, index: int, x: str, sight: Sight, *, first_only: bool) -> str:
    """One layer; with ``first_only`` the state of the first place alone, for which most of the layer need not run."""
    part = f"layers.{index}"
    if b.d.norm_placement is NormPlacement.POST:
        asking = first_place(b, x) if first_only else x
        seen = attention(b, f"{part}.attention", asking, x, sight)
        x = norm(b, f"{part}.attention.norm", b.w.op("Add", asking, seen))
        return norm(b, f"{part}.mlp.norm", b.w.op("Add", x, mlp(b, f"{part}.mlp", x)))
    normed = norm(b, f"{part}.attention.norm", x) if b.d.layers[index].attention_norm else x
    asking = first_place(b, normed) if first_only else normed
    seen = attention(b, f"{part}.attention", asking, normed, sight)
    x = b.w.op("Add", first_place(b, x) if first_only else x, seen)
    return b.w.op("Add", x, mlp(b, f"{part}.mlp", norm(b, f"{part}.mlp.norm", x)))


def _finish(b: Build, x: str, output: Output) -> onnx.ModelProto:
    names = input_names(b.d, output)
    shapes = {name: ("n",) if name in ("lengths", "skips") else ("n", "s") for name in names}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, shapes[name]) for name in names]
    shape = ("n", b.d.dims) if output is Output.POOLED else ("n", "s", b.d.hidden)
    return b.w.model(inputs, helper.make_tensor_value_info(b.w.result(x, "rows"), TensorProto.FLOAT, shape))
