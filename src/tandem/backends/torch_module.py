"""The packed forward pass: the neutral description as PyTorch operations over [tokens, hidden], no padding anywhere.

Every operation but attention works on tokens one by one, so texts may lie end to end; attention is handed in, and
knows where they begin (``torch_attention``). What the order of operations buys: one matrix product for query, key and
value, and one for gate and up, with their biases in the product's epilogue; residuals added in place; no cast outside
norm and rotation, which compute in float32 inside their own kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tandem.backends.torch_packing import Frame
from tandem.backends.torch_weights import EncoderWeights, Layer, Linear, Norm
from tandem.models.description import Activation, EncoderDescription, LayerSpec, NormKind, NormPlacement

Attend: TypeAlias = Callable[[Tensor, LayerSpec], Tensor]
"""[tokens, 3, heads, head_dim] of query, key and value -> [tokens, hidden]."""

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.GELU: functional.gelu,
    Activation.GELU_TANH: lambda x: functional.gelu(x, approximate="tanh"),
    Activation.RELU: functional.relu,
    Activation.SILU: functional.silu,
}


class Feed(NamedTuple):
    """A block on the device, as ``torch_packing.Frame`` lays it out; int32 each."""

    ids: Tensor
    positions: Tensor
    ends: Tensor
    first: Tensor
    last: Tensor
    edges: Tensor


def feed_of(block: Tensor, frame: Frame) -> Feed:
    """Views of a block int32 [frame.size]."""
    return Feed(*(block[part] for part in frame.parts()))


class PackedEncoder:
    """Runs a description. ``fused_gelu``: GELU in the epilogue of its matrix product, by its tanh form, which saves a
    pass over the widest activation; the erf form has no such epilogue."""

    def __init__(self, d: EncoderDescription, weights: EncoderWeights, *, fused_gelu: bool = False) -> None:
        self._d = d
        self._w = weights
        self._activate = _ACTIVATIONS[d.activation]
        gelu = d.activation in (Activation.GELU, Activation.GELU_TANH)
        self._fused_gelu = fused_gelu and gelu and not d.gated
        self._turns = {theta: _turns(d, theta, weights.token.device) for theta in _thetas(d)}

    def __call__(self, feed: Feed, attend: Attend) -> Tensor:
        """The last hidden states [tokens, hidden], in the tier's type."""
        d, w = self._d, self._w
        x = functional.embedding(feed.ids, w.token)
        if w.position is not None:
            x = x.add_(functional.embedding(feed.positions, w.position))
        x = self._norm(w.norm, x)
        turns = {theta: table.index_select(0, feed.positions) for theta, table in self._turns.items()}
        block = self._post if d.norm_placement is NormPlacement.POST else self._pre
        for layer, spec in zip(w.layers, d.layers, strict=True):
            x = block(layer, spec, x, turns, attend)
        return x if w.final_norm is None else self._norm(w.final_norm, x)

    def _post(self, layer: Layer, spec: LayerSpec, x: Tensor, turns: dict[float, Tensor], attend: Attend) -> Tensor:
        assert layer.attention_norm is not None
        x = self._norm(layer.attention_norm, _add_linear(x, self._attention(layer, spec, x, turns, attend), layer.out))
        return self._norm(layer.mlp_norm, _add_linear(x, self._inner(layer, x), layer.down))

    def _pre(self, layer: Layer, spec: LayerSpec, x: Tensor, turns: dict[float, Tensor], attend: Attend) -> Tensor:
        normed = x if layer.attention_norm is None else self._norm(layer.attention_norm, x)
        x = _add_linear(x, self._attention(layer, spec, normed, turns, attend), layer.out)
        return _add_linear(x, self._inner(layer, self._norm(layer.mlp_norm, x)), layer.down)

    def _attention(
        self, layer: Layer, spec: LayerSpec, x: Tensor, turns: dict[float, Tensor], attend: Attend
    ) -> Tensor:
        qkv = functional.linear(x, layer.qkv.weight, layer.qkv.bias).view(-1, 3, self._d.heads, self._d.head_dim)
        if spec.rope_theta is not None:
            _rotate(qkv, turns[spec.rope_theta])
        return attend(qkv, spec)

    def _inner(self, layer: Layer, x: Tensor) -> Tensor:
        if self._fused_gelu and layer.inner.bias is not None:
            return torch._addmm_activation(layer.inner.bias, x, layer.inner.weight.t(), use_gelu=True)
        y = functional.linear(x, layer.inner.weight, layer.inner.bias)
        if not self._d.gated:
            return self._activate(y)
        gate, up = y.chunk(2, dim=-1)
        return self._activate(gate).mul_(up)

    def _norm(self, norm: Norm, x: Tensor) -> Tensor:
        # Both compute in float32 whatever they are given.
        if self._d.norm_kind is NormKind.LAYER:
            return functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, self._d.norm_eps)
        return functional.rms_norm(x, x.shape[-1:], norm.weight, self._d.norm_eps)


def _add_linear(x: Tensor, y: Tensor, linear: Linear) -> Tensor:
    """x + linear(y), in place where there is a choice. Without a bias the product itself adds to x, in float32; with
    one its epilogue is taken by the bias."""
    if linear.bias is None:
        return x.addmm_(y, linear.weight.t())
    return functional.linear(y, linear.weight, linear.bias).add_(x)


def _thetas(d: EncoderDescription) -> set[float]:
    return {layer.rope_theta for layer in d.layers if layer.rope_theta is not None}


def _turns(d: EncoderDescription, theta: float, device: torch.device) -> Tensor:
    """Cosine and sine of position * theta^(-2i/head_dim), float32 [max_positions, 2, head_dim / 2]."""
    half = d.head_dim // 2
    # In float32, as transformers and the reference have it: the model learned with these angles, not with exact ones.
    frequencies = np.float32(1) / np.float32(theta) ** (np.arange(half, dtype=np.float32) / np.float32(half))
    angles = np.arange(d.max_positions, dtype=np.float32)[:, None] * frequencies
    return torch.tensor(np.stack((np.cos(angles), np.sin(angles)), axis=1)).to(device)


def _rotate(qkv: Tensor, turns: Tensor) -> None:
    """Turn each pair (i, i + half) of queries and keys, in place; in float32, as ``turns`` [tokens, 2, half] is."""
    half = turns.shape[-1]
    cos, sin = turns[:, None, None, 0], turns[:, None, None, 1]
    both = qkv[:, :2]
    first, second = both[..., :half], both[..., half:]
    turned_first = first * cos - second * sin
    second.copy_(second * cos + first * sin)
    first.copy_(turned_first)
