"""Weights on the device, as the packed forward pass takes them: query, key and value in one matrix, the gate beside the
up-projection, the token type added to a table, everything in the tier's type.

Each tensor is read, joined and brought over before the next one is read: the host holds one layer at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tandem.models.description import EncoderDescription, Positions, tensor_shapes

Tensors: TypeAlias = Mapping[str, NDArray[Any]]


class Linear(NamedTuple):
    """``weight`` [out, in], ``bias`` [out] or None."""

    weight: Tensor
    bias: Tensor | None


class Norm(NamedTuple):
    """``weight`` [hidden], ``bias`` [hidden] or None."""

    weight: Tensor
    bias: Tensor | None


class Layer(NamedTuple):
    """``qkv`` [3 * hidden, hidden]; ``inner`` [intermediate, hidden], or gate and up [2 * intermediate, hidden]."""

    qkv: Linear
    out: Linear
    attention_norm: Norm | None
    inner: Linear
    down: Linear
    mlp_norm: Norm


class EncoderWeights(NamedTuple):
    """``position`` begins with the row of a text's first token; None with rotary positions. ``relative``: [buckets,
    heads], None without. ``dense`` is in float32: it works on few rows."""

    token: Tensor
    position: Tensor | None
    relative: Tensor | None
    norm: Norm
    layers: tuple[Layer, ...]
    final_norm: Norm | None
    dense: tuple[Linear, ...]


def weight_bytes(d: EncoderDescription, itemsize: int) -> int:
    """What ``load`` takes on the device, in bytes; ``itemsize`` of the tier's type."""
    return sum(prod(shape) * (4 if name.startswith("dense.") else itemsize) for name, shape in tensor_shapes(d).items())


def load(d: EncoderDescription, weights: Tensors, device: torch.device, dtype: torch.dtype) -> EncoderWeights:
    """Bring the tensors of ``tensor_shapes(d)`` to ``device``. Raises RuntimeError when they do not fit."""
    reader = _Reader(weights, device, dtype)
    table = weights["embeddings.token.weight"]
    position = None
    if d.positions is Positions.LEARNED:
        # The offset of the RoBERTa family goes here and is forgotten; so does the type, which is 0 throughout.
        position = weights["embeddings.position.weight"][d.position_offset :]
        if d.token_types:
            position = position + weights["embeddings.type.weight"][0]
    elif d.token_types:
        table = table + weights["embeddings.type.weight"][0]
    return EncoderWeights(
        token=reader.move(table),
        position=None if position is None else reader.move(position),
        relative=reader.move(weights["relative.weight"]) if d.relative_buckets else None,
        norm=reader.norm("embeddings.norm"),
        layers=tuple(_layer(d, reader, index) for index in range(len(d.layers))),
        final_norm=reader.norm("final.norm") if "final.norm.weight" in weights else None,
        dense=tuple(reader.linear((f"dense.{index}",), torch.float32) for index in range(len(d.dense))),
    )


def _layer(d: EncoderDescription, reader: _Reader, index: int) -> Layer:
    attention, mlp = f"layers.{index}.attention", f"layers.{index}.mlp"
    return Layer(
        qkv=reader.linear(tuple(f"{attention}.{part}" for part in ("query", "key", "value"))),
        out=reader.linear((f"{attention}.out",)),
        attention_norm=reader.norm(f"{attention}.norm") if d.layers[index].attention_norm else None,
        inner=reader.linear((f"{mlp}.gate", f"{mlp}.up") if d.gated else (f"{mlp}.up",)),
        down=reader.linear((f"{mlp}.down",)),
        mlp_norm=reader.norm(f"{mlp}.norm"),
    )


class _Reader:
    """Reads tensors by name and brings them to the device."""

    def __init__(self, weights: Tensors, device: torch.device, dtype: torch.dtype) -> None:
        self._weights = weights
        self._device = device
        self._dtype = dtype

    def move(self, array: NDArray[Any], dtype: torch.dtype | None = None) -> Tensor:
        # torch.tensor copies: a view of the mapped file would change under us if the file did.
        return torch.tensor(np.ascontiguousarray(array)).to(self._device, dtype or self._dtype)

    def linear(self, names: tuple[str, ...], dtype: torch.dtype | None = None) -> Linear:
        """One or several linear maps of the same input, joined along their outputs."""
        bias = None
        if f"{names[0]}.bias" in self._weights:
            bias = self.move(np.concatenate([self._weights[f"{name}.bias"] for name in names]), dtype)
        return Linear(self.move(np.concatenate([self._weights[f"{name}.weight"] for name in names]), dtype), bias)

    def norm(self, name: str) -> Norm:
        weight, bias = (self._weights.get(f"{name}.{part}") for part in ("weight", "bias"))
        assert weight is not None
        return Norm(self.move(weight), None if bias is None else self.move(bias))
