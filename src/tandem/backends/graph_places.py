"""Places as ONNX nodes: the mask of padding, local windows, relative and rotary positions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tandem.backends.graph_blocks import Build, Sight, Turn
from tandem.models.description import EncoderDescription

# Large enough that exp() of it is zero beside any score, small enough that a score added to it stays finite.
_MASKED = np.float32(-1e9)


def sights(b: Build) -> list[Sight]:
    """What each layer's attention knows of places; layers of one kind share it."""
    windows = dict.fromkeys(layer.window for layer in b.d.layers)
    thetas = dict.fromkeys(layer.rope_theta for layer in b.d.layers)
    back = _distances(b) if b.d.causal or b.d.relative_buckets or windows.keys() - {None} else ""
    relative = _relative_bias(b, back) if b.d.relative_buckets else ""
    biases = {window: _bias(b, window, back, relative) for window in windows}
    turns = {theta: None if theta is None else _turn(b, theta) for theta in thetas}
    return [Sight(biases[layer.window], turns[layer.rope_theta]) for layer in b.d.layers]


def _bias(b: Build, window: int | None, back: str, relative: str) -> str:
    allowed = b.visible
    if window is not None:
        near = b.w.op("LessOrEqual", b.w.op("Abs", back), b.w.constant(np.int32(window)))
        allowed = b.w.op("And", allowed, near)
    if b.d.causal:
        allowed = b.w.op("And", allowed, b.w.op("GreaterOrEqual", back, b.w.constant(np.int32(0))))
    bias = b.w.op("Where", allowed, b.w.constant(np.float32(0)), b.w.constant(_MASKED))
    return b.w.op("Add", bias, relative) if relative else bias


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
