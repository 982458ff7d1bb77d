"""The blocks of an encoder layer as ONNX nodes: linear, norm, attention, MLP, rotary positions, masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.backends.graph_writer import GraphWriter
from tandem.models.description import Activation, EncoderDescription, NormKind

Tensors: TypeAlias = Mapping[str, NDArray[np.float32]]

# Large enough that exp() of it is zero beside any score, small enough that a score added to it stays finite.
_MASKED = np.float32(-1e9)


class Build(msgspec.Struct, frozen=True):
    """What every block is built from: the description ``d``, the weights, the writer ``w``, and the values that
    blocks share: ``size`` int64 [1] = s, ``places`` int32 [s] = 0 .. s-1, ``lengths`` int32 [n, 1]."""

    d: EncoderDescription
    weights: Tensors
    w: GraphWriter
    size: str
    places: str
    lengths: str


class Turn(msgspec.Struct, frozen=True):
    """Rotary factors, each float32 [1, 1, s, head_dim]."""

    cos: str
    sin: str


def linear(b: Build, name: str, x: str) -> str:
    """x W^T + b over the last axis."""
    return affine(b, name, x, b.weights[f"{name}.weight"], b.weights.get(f"{name}.bias"))


def affine(b: Build, name: str, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str:
    """x ``weight``^T + ``bias``, both stored under ``name``. Kept [in, out]: ONNX's MatMul has no transpose."""
    y = b.w.op("MatMul", x, b.w.tensor(f"{name}.weight", np.ascontiguousarray(weight.T)))
    return y if bias is None else b.w.op("Add", y, b.w.tensor(f"{name}.bias", bias))


def norm(b: Build, name: str, x: str) -> str:
    weight = b.w.tensor(f"{name}.weight", b.weights[f"{name}.weight"])
    if b.d.norm_kind is NormKind.RMS:
        square = b.w.op("ReduceMean", b.w.op("Mul", x, x), b.w.ints(-1))
        root = b.w.op("Sqrt", b.w.op("Add", square, b.w.constant(np.float32(b.d.norm_eps))))
        return b.w.op("Mul", b.w.op("Div", x, root), weight)
    inputs = [x, weight]
    if b.d.norm_bias:
        inputs.append(b.w.tensor(f"{name}.bias", b.weights[f"{name}.bias"]))
    return b.w.op("LayerNormalization", *inputs, attributes={"axis": -1, "epsilon": b.d.norm_eps})


def activate(b: Build, activation: Activation, x: str) -> str:
    match activation:
        case Activation.GELU:
            return b.w.op("Gelu", x)
        case Activation.GELU_TANH:
            return b.w.op("Gelu", x, attributes={"approximate": "tanh"})
        case Activation.RELU:
            return b.w.op("Relu", x)
        case Activation.SILU:
            return b.w.op("Mul", x, b.w.op("Sigmoid", x))


def mlp(b: Build, name: str, x: str) -> str:
    if b.d.gated:
        inner = b.w.op("Mul", activate(b, b.d.activation, linear(b, f"{name}.gate", x)), linear(b, f"{name}.up", x))
    else:
        inner = activate(b, b.d.activation, linear(b, f"{name}.up", x))
    return linear(b, f"{name}.down", inner)


def attention(b: Build, name: str, x: str, bias: str, turn: Turn | None) -> str:
    """Multi-head attention; ``bias`` is added to the scores [n, heads, s, s]: the mask, and relative positions."""
    query, key, value = (_heads(b, part) for part in _query_key_value(b, name, x))
    if turn is not None:
        query, key = rotate(b, query, turn), rotate(b, key, turn)
    scores = b.w.op("MatMul", query, b.w.op("Transpose", key, attributes={"perm": (0, 1, 3, 2)}))
    shares = b.w.op("Softmax", b.w.op("Add", scores, bias), attributes={"axis": -1})
    mixed = b.w.op("Transpose", b.w.op("MatMul", shares, value), attributes={"perm": (0, 2, 1, 3)})
    return linear(b, f"{name}.out", b.w.op("Reshape", mixed, b.w.ints(0, 0, b.d.hidden)))


def _query_key_value(b: Build, name: str, x: str) -> list[str]:
    """One product for the three, the query scaled by 1/sqrt(head_dim) in its weights."""
    scale = np.float32(1 / math.sqrt(b.d.head_dim))
    parts = [f"{name}.query", f"{name}.key", f"{name}.value"]
    weights = [b.weights[f"{part}.weight"] for part in parts]
    fused = np.concatenate([weights[0] * scale, *weights[1:]])
    bias = None
    if b.d.attention_bias:
        biases = [b.weights[f"{part}.bias"] for part in parts]
        bias = np.concatenate([biases[0] * scale, *biases[1:]])
    together = affine(b, f"{name}.qkv", x, fused, bias)
    return b.w.split("Split", together, results=3, attributes={"axis": -1, "num_outputs": 3})


def _heads(b: Build, x: str) -> str:
    """[n, s, hidden] -> [n, heads, s, head_dim]."""
    split = b.w.op("Reshape", x, b.w.ints(0, 0, b.d.heads, b.d.head_dim))
    return b.w.op("Transpose", split, attributes={"perm": (0, 2, 1, 3)})


def rotate(b: Build, x: str, turn: Turn) -> str:
    """x cos + (-second half, first half) sin; x is [n, heads, s, head_dim].

    Written with Slice and a product by -1, over tables of four axes: in this form, and not with Split or Neg, OpenVINO
    makes one RoPE node of it that takes in the transposition too.
    """
    half = b.d.head_dim // 2
    second = b.w.op("Slice", x, b.w.ints(half), b.w.ints(2 * half), b.w.ints(3), b.w.ints(1))
    first = b.w.op("Slice", x, b.w.ints(0), b.w.ints(half), b.w.ints(3), b.w.ints(1))
    minus = b.w.op("Mul", second, b.w.constant(np.float32(-1)))
    swapped = b.w.op("Concat", minus, first, attributes={"axis": -1})
    return b.w.op("Add", b.w.op("Mul", x, turn.cos), b.w.op("Mul", swapped, turn.sin))


def turns(b: Build) -> dict[float | None, Turn]:
    """The rotary factors of each base that a layer uses."""
    return {
        theta: _turn(b, theta) for theta in dict.fromkeys(layer.rope_theta for layer in b.d.layers) if theta is not None
    }


def _turn(b: Build, theta: float) -> Turn:
    half = b.d.head_dim // 2
    # In float32 throughout, as transformers computes them: the tables must agree at position 8,000 too.
    frequencies = np.float32(1) / np.float32(theta) ** (np.arange(half, dtype=np.float32) / np.float32(half))
    angles = np.arange(b.d.max_positions, dtype=np.float32)[:, None] * np.tile(frequencies, 2)
    cos = b.w.tensor(f"rotary.{theta!r}.cos", np.cos(angles))
    sin = b.w.tensor(f"rotary.{theta!r}.sin", np.sin(angles))
    return Turn(*(b.w.op("Unsqueeze", first_rows(b, table), b.w.ints(0, 1)) for table in (cos, sin)))


def first_rows(b: Build, table: str) -> str:
    """The first s rows of a table."""
    return b.w.op("Slice", table, b.w.ints(0), b.size, b.w.ints(0))


def score_biases(b: Build) -> dict[int | None, str]:
    """What is added to the scores, by the layers' windows: [n, 1 or heads, 1 or s, s]."""
    real = b.w.op("Less", b.w.op("Unsqueeze", b.places, b.w.ints(0)), b.lengths)
    real = b.w.op("Unsqueeze", real, b.w.ints(1, 2))
    back = _distances(b) if b.d.causal or b.d.relative_buckets or any(x.window is not None for x in b.d.layers) else ""
    biases: dict[int | None, str] = {}
    for window in dict.fromkeys(layer.window for layer in b.d.layers):
        allowed = real
        if window is not None:
            near = b.w.op("LessOrEqual", b.w.op("Abs", back), b.w.constant(np.int32(window)))
            allowed = b.w.op("And", allowed, near)
        if b.d.causal:
            allowed = b.w.op("And", allowed, b.w.op("GreaterOrEqual", back, b.w.constant(np.int32(0))))
        bias = b.w.op("Where", allowed, b.w.constant(np.float32(0)), b.w.constant(_MASKED))
        biases[window] = b.w.op("Add", bias, _relative_bias(b, back)) if b.d.relative_buckets else bias
    return biases


def _distances(b: Build) -> str:
    """How far back each place (row) looks to each other one (column), int32 [s, s]."""
    return b.w.op("Sub", b.w.op("Unsqueeze", b.places, b.w.ints(1)), b.places)


def _relative_bias(b: Build, back: str) -> str:
    """T5's bucketed bias [heads, s, s], looked up in a table of all distances."""
    furthest = b.d.max_positions - 1
    table = b.weights["relative.weight"][_buckets(b.d, np.arange(-furthest, furthest + 1))]
    stored = b.w.tensor("relative.by_distance", np.ascontiguousarray(table.T))
    return b.w.op("Gather", stored, b.w.op("Add", back, b.w.constant(np.int32(furthest))), attributes={"axis": 1})


def _buckets(d: EncoderDescription, back: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each distance (query's place minus key's), after transformers' ``relative_position_bucket``:
    half the buckets for either direction, of which half are exact and the others logarithmic. In float32, as there:
    at 16, 32 and 64 tokens the logarithm stands on the edge of a bucket."""
    each = d.relative_buckets // 2
    exact = each // 2
    away = np.abs(back)
    ratio = np.log(np.maximum(away, 1).astype(np.float32) / exact) / math.log(d.relative_max_distance / exact)
    far = np.minimum(exact + (ratio * (each - exact)).astype(np.int64), each - 1)
    return np.where(back < 0, each, 0) + np.where(away < exact, away, far)
