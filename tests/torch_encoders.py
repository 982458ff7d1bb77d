"""What the tests of the PyTorch backend share: tiny encoders of every kind, batches, and attention without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tandem.backends.torch_attention import Attention, GroupedAttention
from tandem.backends.torch_forward import Forward, TorchOptions
from tandem.backends.torch_varlen import VarlenAttention
from tandem.backends.torch_weights import load
from tandem.models.description import Activation, EncoderDescription, LayerSpec, NormKind, NormPlacement, Positions
from tandem.types import TokenBatch
from tests.tiny_models import random_weights, tiny

CPU = torch.device("cpu")
MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last")
_ROTARY = {"positions": Positions.ROTARY, "norm_placement": NormPlacement.PRE, "gated": True, "token_types": 0}
_WINDOWED = (LayerSpec(rope_theta=1e4, attention_norm=False), LayerSpec(rope_theta=1e2, window=2))

ENCODERS: dict[str, EncoderDescription] = {
    "every pooling": tiny(changes={"pooling": MODES}),
    "prompted": tiny(changes={"pooling": MODES, "skips_prompt": True}),
    "offset": tiny(changes={"position_offset": 2, "token_types": 1}),
    "rotary and windows": tiny(_WINDOWED, _ROTARY),
    "causal": tiny(_WINDOWED, _ROTARY | {"causal": True, "pooling": ("last",)}),
    "rms without biases": tiny(
        (LayerSpec(rope_theta=1e4),) * 2,
        _ROTARY
        | {"norm_kind": NormKind.RMS, "activation": Activation.SILU, "attention_bias": False, "mlp_bias": False},
    ),
}
RELATIVE = tiny(changes={"relative_buckets": 8, "relative_max_distance": 16})


def loop_call(qkv: Tensor, ends: Tensor, longest: int, seen: tuple[int, int]) -> Tensor:
    """What ``varlen_attn`` does, one text at a time. Places of no text get what it would leave there: anything."""
    found = torch.full_like(qkv[:, 0], float("nan"))
    left, right = (count if count >= 0 else longest for count in seen)
    for start, stop in zip(ends.tolist(), ends.tolist()[1:], strict=False):
        assert stop - start <= longest
        if stop > start:
            places = torch.arange(stop - start)
            back = places[:, None] - places
            query, key, value = qkv[start:stop].permute(1, 2, 0, 3)
            mask = (back <= left) & (-back <= right)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            found[start:stop] = mixed.transpose(0, 1)
    return found


def one_forward(
    d: EncoderDescription, attention: Attention | None = None, options: TorchOptions | None = None
) -> Forward:
    """In float32 on this CPU; ``attention`` by ``loop_call`` where not given."""
    weights = load(d, random_weights(d), CPU, torch.float32)
    return Forward(d, weights, attention or VarlenAttention(d, loop_call), options or TorchOptions())


def grouped(d: EncoderDescription) -> GroupedAttention:
    relative = torch.from_numpy(random_weights(d)["relative.weight"]) if d.relative_buckets else None
    return GroupedAttention(d, relative)


def flat_batch(lengths: Sequence[int], *, seed: int = 0, skips: bool = False) -> TokenBatch:
    """Random texts end to end."""
    rng = np.random.default_rng(seed)
    sizes = np.array(lengths, np.int32)
    return TokenBatch(
        ids=rng.integers(0, 50, (1, int(sizes.sum()))).astype(np.int32),
        lengths=sizes,
        skips=rng.integers(0, 6, len(sizes)).astype(np.int32) if skips else None,
        places=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32),
    )
