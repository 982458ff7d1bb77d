"""From hidden states to rows: sentence-transformers' pooling modes and dense heads as ONNX nodes.

Every mode but ``max`` is a product of weights over places with the hidden states, so padding and skipped prompts
have weight 0. The weights are whole numbers, which bfloat16 holds exactly up to 256; the division comes after.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tandem.backends.graph_blocks import Build, activate, linear
from tandem.models.description import Activation

_LOWEST = np.float32(-3e38)


def pool(b: Build, states: str) -> str:
    """Rows [n, hidden * modes] from ``states`` [n, s, hidden], over the places from skips up to lengths."""
    rows = [_MODES[mode](b, states) for mode in b.d.pooling]
    return rows[0] if len(rows) == 1 else b.w.op("Concat", *rows, attributes={"axis": 1})


def project(b: Build, rows: str) -> str:
    """The dense heads, one after the other."""
    for index, head in enumerate(b.d.dense):
        rows = linear(b, f"dense.{index}", rows)
        if head.activation == "tanh":
            rows = b.w.op("Tanh", rows)
        elif head.activation != "identity":
            rows = activate(b, Activation(head.activation), rows)
    return rows


def _start(b: Build) -> str:
    """The first place that counts, int32 [n, 1]. A prompt that fills its text leaves the last token."""
    last = b.w.op("Sub", b.lengths, b.w.constant(np.int32(1)))
    return b.w.op("Min", b.w.op("Unsqueeze", "skips", b.w.ints(1)), last)


def _counted(b: Build) -> str:
    """1 for the places that count and 0 for the others, float32 [n, 1, s]."""
    counted = b.w.op("Less", b.w.op("Unsqueeze", b.places, b.w.ints(0)), b.lengths)
    if b.d.skips_prompt:
        counted = b.w.op("And", counted, b.w.op("GreaterOrEqual", b.places, _start(b)))
    return _floats(b, b.w.op("Unsqueeze", counted, b.w.ints(1)))


def _floats(b: Build, x: str) -> str:
    return b.w.op("Cast", x, attributes={"to": 1})


def _weighted_sum(b: Build, states: str, weights: str) -> str:
    """[n, 1, s] x [n, s, hidden] -> [n, hidden]."""
    return b.w.op("Squeeze", b.w.op("MatMul", weights, states), b.w.ints(1))


def _total(b: Build, weights: str) -> str:
    """[n, 1, s] -> [n, 1]."""
    return b.w.op("ReduceSum", weights, b.w.ints(2), attributes={"keepdims": 0})


def _mean(b: Build, states: str) -> str:
    counted = _counted(b)
    return b.w.op("Div", _weighted_sum(b, states, counted), _total(b, counted))


def _mean_sqrt_len(b: Build, states: str) -> str:
    counted = _counted(b)
    return b.w.op("Div", _weighted_sum(b, states, counted), b.w.op("Sqrt", _total(b, counted)))


def _weighted_mean(b: Build, states: str) -> str:
    ranks = b.w.op("Add", b.places, b.w.constant(np.int32(1)))
    weights = b.w.op("Mul", _counted(b), _floats(b, ranks))
    return b.w.op("Div", _weighted_sum(b, states, weights), _total(b, weights))


def _max(b: Build, states: str) -> str:
    kept = b.w.op("Cast", b.w.op("Transpose", _counted(b), attributes={"perm": (0, 2, 1)}), attributes={"to": 9})
    masked = b.w.op("Where", kept, states, b.w.constant(_LOWEST))
    return b.w.op("ReduceMax", masked, b.w.ints(1), attributes={"keepdims": 0})


def _cls(b: Build, states: str) -> str:
    if b.d.skips_prompt:
        return _pick(b, states, _start(b))
    return b.w.op("Gather", states, b.w.constant(np.int64(0)), attributes={"axis": 1})


def _last(b: Build, states: str) -> str:
    return _pick(b, states, b.w.op("Sub", b.lengths, b.w.constant(np.int32(1))))


def _pick(b: Build, states: str, place: str) -> str:
    """The state at one place [n, 1] of each text."""
    chosen = b.w.op("Equal", b.places, place)
    return _weighted_sum(b, states, _floats(b, b.w.op("Unsqueeze", chosen, b.w.ints(1))))


_MODES: dict[str, Callable[[Build, str], str]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "last": _last,
}
