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


class Build(msgspec.Struct, frozen=True):
    """What every block is built from: the description ``d``, the weights, the writer ``w``, and the values that
    blocks share: ``size`` int64 [1] = s, ``places`` int32 [s] = 0 .. s-1, and ``visible`` bool, [n, 1, 1, s] or
    [n, 1, s, s]: which places (columns) a place (row) may look at. ``lengths`` int32 [n, 1] is there for pooling."""

    d: EncoderDescription
    weights: Tensors
    w: GraphWriter
    size: str
    places: str
    visible: str
    lengths: str = ""


class Turn(msgspec.Struct, frozen=True):
    """Rotary factors, each float32 [1, 1, s, head_dim]."""

    cos: str
    sin: str


class Sight(msgspec.Struct, frozen=True):
    """What a layer's attention knows of places. ``bias`` is added to the scores and is [n, 1 or heads, 1 or s, s]: the
    mask, and relative positions. ``turn`` is None without rotary positions."""

    bias: str
    turn: Turn | None


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


def attention(b: Build, name: str, asking: str, x: str, sight: Sight) -> str:
    """Multi-head attention of the places ``asking`` to the places ``x`` [n, s, hidden]: all of them, which is ``x``
    again, or ``first_place`` alone."""
    query, key, value = (_heads(b, part) for part in _query_key_value(b, name, asking, x))
    bias = sight.bias
    if asking != x:
        bias = b.w.op("Slice", bias, b.w.ints(0), b.w.ints(1), b.w.ints(2))
    if sight.turn is not None:
        # The first place is turned by nothing.
        query = rotate(b, query, sight.turn) if asking == x else query
        key = rotate(b, key, sight.turn)
    scores = b.w.op("MatMul", query, b.w.op("Transpose", key, attributes={"perm": (0, 1, 3, 2)}))
    shares = b.w.op("Softmax", b.w.op("Add", scores, bias), attributes={"axis": -1})
    mixed = b.w.op("Transpose", b.w.op("MatMul", shares, value), attributes={"perm": (0, 2, 1, 3)})
    return linear(b, f"{name}.out", b.w.op("Reshape", mixed, b.w.ints(0, 0, b.d.hidden)))


def first_place(b: Build, x: str) -> str:
    """[n, s, hidden] -> [n, 1, hidden]."""
    return b.w.op("Slice", x, b.w.ints(0), b.w.ints(1), b.w.ints(1))


def _query_key_value(b: Build, name: str, asking: str, x: str) -> list[str]:
    """One product for all three where all places ask; the query's weights are scaled by 1/sqrt(head_dim)."""
    if asking == x:
        return _fused(b, name, x, ("query", "key", "value"))
    return _fused(b, name, asking, ("query",)) + _fused(b, name, x, ("key", "value"))


def _fused(b: Build, name: str, x: str, parts: tuple[str, ...]) -> list[str]:
    scales = {"query": np.float32(1 / math.sqrt(b.d.head_dim))}

    def together(kind: str) -> NDArray[np.float32]:
        return np.concatenate([b.weights[f"{name}.{p}.{kind}"] * scales.get(p, np.float32(1)) for p in parts])

    bias = together("bias") if b.d.attention_bias else None
    product = affine(b, f"{name}.{'.'.join(parts)}", x, together("weight"), bias)
    if len(parts) == 1:
        return [product]
    return b.w.split("Split", product, results=len(parts), attributes={"axis": -1, "num_outputs": len(parts)})


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
