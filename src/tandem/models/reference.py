"""The fp32 reference: the forward pass in plain numpy, which every backend is proven against.

Written to be checked by eye, and on purpose in another way than the graph: each text is run alone at its own length,
so there is no padding and no mask to get wrong, and no tensor is fused or folded. Meant for a handful of short texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tandem.models.description import Activation, EncoderDescription, LayerSpec, NormKind, NormPlacement, Positions
from tandem.types import Output, TokenBatch

# numpy types the results of its operators as Any, so checking the element type would be a row of casts.
Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]


def forward(description: EncoderDescription, weights: Tensors, batch: TokenBatch) -> Array:
    """Pooled and projected rows [n, d], not normalised; for ``Output.TOKENS`` hidden states [n, s, hidden], padding 0.

    ``weights`` are the tensors of ``tensor_shapes(description)``.
    """
    texts = list(batch.texts())
    states = _encode(description, weights, texts)
    if batch.output is Output.TOKENS:
        padded = np.zeros((len(texts), batch.ids.shape[1], description.hidden), np.float32)
        for row, state in zip(padded, states, strict=True):
            row[: len(state)] = state
        return padded
    skips = np.zeros(len(texts), np.int32) if batch.skips is None else batch.skips
    rows = [pool(description, state, int(skip)) for state, skip in zip(states, skips, strict=True)]
    return project(description, weights, np.stack(rows))


def _encode(d: EncoderDescription, weights: Tensors, texts: list[NDArray[np.int32]]) -> list[Array]:
    # Layer by layer over all texts, so that a tensor that has to be converted is read once.
    states = [_embed(d, weights, ids) for ids in texts]
    biases = [_score_bias(d, weights, len(ids)) for ids in texts]
    for index, layer in enumerate(d.layers):
        prefix = f"layers.{index}."
        own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
        states = [_layer(d, own, layer, x, bias) for x, bias in zip(states, biases, strict=True)]
    if d.norm_placement is NormPlacement.PRE:
        states = [_norm(d, weights, "final.norm", x) for x in states]
    return states


def _embed(d: EncoderDescription, weights: Tensors, ids: NDArray[np.int32]) -> Array:
    x = weights["embeddings.token.weight"][ids]
    if d.positions is Positions.LEARNED:
        x = x + weights["embeddings.position.weight"][d.position_offset : d.position_offset + len(ids)]
    if d.token_types:
        x = x + weights["embeddings.type.weight"][0]
    return _norm(d, weights, "embeddings.norm", x)


def _layer(d: EncoderDescription, own: Tensors, layer: LayerSpec, x: Array, bias: Array) -> Array:
    if d.norm_placement is NormPlacement.POST:
        x = _norm(d, own, "attention.norm", x + _attention(d, own, layer, x, bias))
        return _norm(d, own, "mlp.norm", x + _mlp(d, own, x))
    normed = _norm(d, own, "attention.norm", x) if layer.attention_norm else x
    x = x + _attention(d, own, layer, normed, bias)
    return x + _mlp(d, own, _norm(d, own, "mlp.norm", x))


def _attention(d: EncoderDescription, own: Tensors, layer: LayerSpec, x: Array, bias: Array) -> Array:
    length = len(x)
    query, key, value = (
        _linear(own, f"attention.{part}", x).reshape(length, d.heads, d.head_dim).transpose(1, 0, 2)
        for part in ("query", "key", "value")
    )
    if layer.rope_theta is not None:
        query, key = _rotate(query, layer.rope_theta), _rotate(key, layer.rope_theta)
    scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(d.head_dim)) + bias
    if layer.window is not None or d.causal:
        scores = np.where(_reach(d, layer, length), scores, np.float32(-np.inf))
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = exp / exp.sum(axis=-1, keepdims=True) @ value
    return _linear(own, "attention.out", mixed.transpose(1, 0, 2).reshape(length, d.hidden))


def _reach(d: EncoderDescription, layer: LayerSpec, length: int) -> NDArray[np.bool_]:
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    reach = np.ones((length, length), np.bool_)
    if layer.window is not None:
        reach &= np.abs(distance) <= layer.window
    return reach & (distance <= 0) if d.causal else reach


def _rotate(x: Array, theta: float) -> Array:
    """Turn each pair (i, i + half) of a head by position * theta^(-2i/head_dim); x is [heads, length, head_dim]."""
    half = x.shape[-1] // 2
    frequencies = np.float32(1) / np.float32(theta) ** (np.arange(half, dtype=np.float32) / np.float32(half))
    angles = np.arange(x.shape[1], dtype=np.float32)[:, None] * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _score_bias(d: EncoderDescription, weights: Tensors, length: int) -> Array:
    """T5's relative bias [heads, length, length], or a zero that broadcasts."""
    if not d.relative_buckets:
        return np.zeros((1, 1, 1), np.float32)
    back = np.arange(length)[:, None] - np.arange(length)[None, :]
    half = d.relative_buckets // 2
    exact = half // 2
    # In float32, as transformers has it: at 16, 32 and 64 tokens the logarithm stands on the edge of a bucket.
    ratio = np.log(np.maximum(np.abs(back), 1).astype(np.float32) / exact) / math.log(d.relative_max_distance / exact)
    far = np.minimum(exact + (ratio * (half - exact)).astype(np.int64), half - 1)
    buckets = np.where(np.abs(back) < exact, np.abs(back), far) + half * (back < 0)
    bias: Array = weights["relative.weight"][buckets].transpose(2, 0, 1)
    return bias


def _mlp(d: EncoderDescription, own: Tensors, x: Array) -> Array:
    if d.gated:
        inner = _activate(d.activation, _linear(own, "mlp.gate", x)) * _linear(own, "mlp.up", x)
    else:
        inner = _activate(d.activation, _linear(own, "mlp.up", x))
    return _linear(own, "mlp.down", inner)


def _linear(tensors: Tensors, name: str, x: Array) -> Array:
    y: Array = x @ tensors[f"{name}.weight"].T
    return y + tensors[f"{name}.bias"] if f"{name}.bias" in tensors else y


def _norm(d: EncoderDescription, tensors: Tensors, name: str, x: Array) -> Array:
    weight = tensors[f"{name}.weight"]
    layer = d.norm_kind is NormKind.LAYER
    centred = x - x.mean(axis=-1, keepdims=True) if layer else x
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(d.norm_eps))
    y: Array = centred / spread * weight
    return y + tensors[f"{name}.bias"] if layer and d.norm_bias else y


def _activate(activation: Activation, x: Array) -> Array:
    half = np.float32(0.5)
    match activation:
        case Activation.GELU:
            gate = half + half * erf(x * np.sqrt(half))
        case Activation.GELU_TANH:
            gate = half + half * np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3))
        case Activation.RELU:
            gate = (x > 0).astype(np.float32)
        case Activation.SILU:
            # The sigmoid by tanh: exp(-x) overflows.
            gate = half + half * np.tanh(x * half)
    y: Array = x * gate
    return y


def erf(x: Array) -> Array:
    """The error function to 1e-7, elementwise; numpy has none.

    Source: the rational approximation x P(x^2) / Q(x^2) on [-4, 4] of the Eigen library, where erf(4) = 1 - 1.5e-8.
    Evaluated in float64: in float32 its error is four times as large.
    """
    clipped = np.clip(x.astype(np.float64), -4, 4)
    square = clipped * clipped
    y: Array = (clipped * np.polyval(_ERF_TOP, square) / np.polyval(_ERF_BOTTOM, square)).astype(np.float32)
    return y


_ERF_TOP = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BOTTOM = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def pool(d: EncoderDescription, states: Array, skip: int) -> Array:
    """One text's row [hidden * modes] from its hidden states [length, hidden]."""
    # A prompt that fills the whole text leaves nothing to pool; its last token then stands for it.
    start = min(skip, len(states) - 1)
    kept = states[start:]
    weights = np.arange(start + 1, len(states) + 1, dtype=np.float32)[:, None]
    modes = {
        "cls": lambda: kept[0],
        "last": lambda: kept[-1],
        "max": lambda: kept.max(axis=0),
        "mean": lambda: kept.mean(axis=0),
        "mean_sqrt_len": lambda: kept.sum(axis=0) / np.float32(math.sqrt(len(kept))),
        "weightedmean": lambda: (kept * weights).sum(axis=0) / weights.sum(),
    }
    return np.concatenate([modes[mode]() for mode in d.pooling])


def project(d: EncoderDescription, weights: Tensors, rows: Array) -> Array:
    """The dense heads, one after the other, over rows [n, hidden * modes]."""
    for index, head in enumerate(d.dense):
        rows = _linear(weights, f"dense.{index}", rows)
        match head.activation:
            case "tanh":
                rows = np.tanh(rows)
            case "relu" | "gelu":
                rows = _activate(Activation(head.activation), rows)
    return rows
