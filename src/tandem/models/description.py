"""The neutral description of an encoder: everything a lowering needs to know, and nothing about any family.

``families`` writes one from a model's ``config.json``. The ONNX graph builder and the numpy reference read it, so
neither knows a family's name. Tensors go by canonical names, which ``tensor_shapes`` lists. Linear weights are kept
as [out, in]: y = x W^T + b.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from tandem.models.sentence_files import DenseSpec

Shape: TypeAlias = tuple[int, ...]


class NormKind(StrEnum):
    """LAYER: (x - mean) / sqrt(var + eps) * weight + bias. RMS: x / sqrt(mean(x^2) + eps) * weight."""

    LAYER = "layer"
    RMS = "rms"


class NormPlacement(StrEnum):
    """POST: norm(x + block(x)), as in BERT. PRE: x + block(norm(x)), as in ModernBERT."""

    POST = "post"
    PRE = "pre"


class Activation(StrEnum):
    """GELU is the erf form, GELU_TANH its tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415)."""

    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"
    SILU = "silu"


class Positions(StrEnum):
    """LEARNED: a table added to the token embeddings. ROTARY: queries and keys are turned (arXiv:2104.09864)."""

    LEARNED = "learned"
    ROTARY = "rotary"


class LayerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What may differ from layer to layer.

    ``window`` w: position i attends to j where \\|i - j\\| <= w; None is everywhere. ``rope_theta`` is the rotary
    base, None without rotary positions. ``attention_norm`` False: the attention block reads its input as it is.
    """

    window: int | None = None
    rope_theta: float | None = None
    attention_norm: bool = True


class EncoderDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One encoder with its pooling and dense heads; the trailing Normalize is not part of it.

    ``max_positions`` is the longest text in tokens, special tokens counted. ``position_offset`` is the row of the
    position table that the first token takes. A text has token type 0 throughout. ``relative_buckets`` > 0 adds T5's
    bucketed relative bias (arXiv:1910.10683) to the scores of every layer. ``gated``: activation(gate(x)) * up(x)
    instead of activation(up(x)). ``skips_prompt``: pooling leaves out ``TokenBatch.skips`` leading tokens.
    """

    family: str
    vocab_size: int
    hidden: int
    heads: int
    intermediate: int
    max_positions: int
    layers: tuple[LayerSpec, ...]
    positions: Positions = Positions.LEARNED
    position_offset: int = 0
    relative_buckets: int = 0
    relative_max_distance: int = 128
    token_types: int = 0
    norm_kind: NormKind = NormKind.LAYER
    norm_placement: NormPlacement = NormPlacement.POST
    norm_eps: float = 1e-12
    norm_bias: bool = True
    activation: Activation = Activation.GELU
    gated: bool = False
    attention_bias: bool = True
    mlp_bias: bool = True
    causal: bool = False
    pooling: tuple[str, ...] = ("mean",)
    skips_prompt: bool = False
    dense: tuple[DenseSpec, ...] = ()

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def dims(self) -> int:
        """Length of a pooled row."""
        return self.dense[-1].out_features if self.dense else self.hidden * len(self.pooling)


def tensor_shapes(description: EncoderDescription) -> dict[str, Shape]:
    """Canonical name -> shape of every tensor of the encoder and its dense heads; the heads' alone without layers."""
    d = description
    shapes = _encoder_shapes(d) if d.layers else {}
    for index, head in enumerate(d.dense):
        shapes |= _linear_shapes(f"dense.{index}", head.out_features, head.in_features, bias=head.bias)
    return shapes


def _encoder_shapes(d: EncoderDescription) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"embeddings.token.weight": (d.vocab_size, d.hidden)}
    if d.positions is Positions.LEARNED:
        shapes["embeddings.position.weight"] = (d.max_positions + d.position_offset, d.hidden)
    if d.token_types:
        shapes["embeddings.type.weight"] = (d.token_types, d.hidden)
    if d.relative_buckets:
        shapes["relative.weight"] = (d.relative_buckets, d.heads)
    shapes |= _norm_shapes(d, "embeddings.norm")
    for index in range(len(d.layers)):
        shapes |= _layer_shapes(d, index)
    if d.norm_placement is NormPlacement.PRE:
        shapes |= _norm_shapes(d, "final.norm")
    return shapes


def _layer_shapes(d: EncoderDescription, index: int) -> dict[str, Shape]:
    prefix = f"layers.{index}"
    shapes: dict[str, Shape] = {}
    for part in ("query", "key", "value", "out"):
        shapes |= _linear_shapes(f"{prefix}.attention.{part}", d.hidden, d.hidden, bias=d.attention_bias)
    if d.layers[index].attention_norm:
        shapes |= _norm_shapes(d, f"{prefix}.attention.norm")
    for part in ("gate", "up") if d.gated else ("up",):
        shapes |= _linear_shapes(f"{prefix}.mlp.{part}", d.intermediate, d.hidden, bias=d.mlp_bias)
    shapes |= _linear_shapes(f"{prefix}.mlp.down", d.hidden, d.intermediate, bias=d.mlp_bias)
    return shapes | _norm_shapes(d, f"{prefix}.mlp.norm")


def _linear_shapes(name: str, out_features: int, in_features: int, *, bias: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight": (out_features, in_features)}
    return shapes | {f"{name}.bias": (out_features,)} if bias else shapes


def _norm_shapes(d: EncoderDescription, name: str) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight": (d.hidden,)}
    return shapes | {f"{name}.bias": (d.hidden,)} if d.norm_bias and d.norm_kind is NormKind.LAYER else shapes
