"""Attention by ``torch.nn.attention.varlen``: one FlashAttention call a layer over all texts, without padding.

Nothing in the call has to be known of each batch by the host, so a CUDA graph can hold it. It takes 16-bit types on
Ampere and later, and no bias on the scores. It is tried before it is believed: a wrong result or an error on a few
random texts, and the grouped way is taken instead.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tandem.backends.torch_attention import Attention, GroupedAttention, reach
from tandem.backends.torch_device import BF16_CAPABILITY
from tandem.backends.torch_module import Attend, Feed, feed_of
from tandem.backends.torch_packing import Frame, fill, pack
from tandem.models.description import EncoderDescription, LayerSpec
from tandem.types import TokenBatch

log = logging.getLogger("tandem.backends")

_WIDEST_HEAD = 256
_TRIED_LENGTHS = (1, 3, 40, 130)
_TRIED_BOUND = 0.999


class VarlenCall:
    """``varlen_attn`` as each release has it: causality is a flag in 2.10 and a window since. ``num_splits``, newer
    still, keeps a text's bits the same in any company; not every kernel behind the function takes it."""

    def __init__(self, function: Callable[..., Any], *, one_split: bool) -> None:
        names = inspect.signature(function).parameters
        self.windows = "window_size" in names
        self._function = function
        self._fixed: dict[str, Any] = {"num_splits": 1} if one_split and "num_splits" in names else {}

    def __call__(self, qkv: Tensor, ends: Tensor, longest: int, seen: tuple[int, int]) -> Tensor:
        """[tokens, 3, heads, head_dim] -> [tokens, heads, head_dim]. Rows past the last end hold anything."""
        query, key, value = qkv.unbind(1)
        chosen: dict[str, Any] = {"window_size": seen} if self.windows else {"is_causal": seen == (-1, 0)}
        found: Tensor = self._function(query, key, value, ends, ends, longest, longest, **chosen, **self._fixed)
        return found


class VarlenAttention:
    """One call over all texts."""

    static = True
    by_length = False

    def __init__(self, d: EncoderDescription, call: Callable[[Tensor, Tensor, int, tuple[int, int]], Tensor]) -> None:
        self._causal = d.causal
        self._call = call

    def prepare(self, feed: Feed, longest: int, packed: object = None) -> Attend:
        def attend(qkv: Tensor, spec: LayerSpec) -> Tensor:
            return self._call(qkv, feed.ends, longest, reach(spec, causal=self._causal)).flatten(1)

        return attend


def varlen_calls() -> list[VarlenCall]:
    """The ways of calling PyTorch's function, the better one first; none where this release has no such function."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return []
    return [VarlenCall(varlen_attn, one_split=one_split) for one_split in (True, False)]


def why_not_varlen(
    d: EncoderDescription, dtype: torch.dtype, capability: tuple[int, int] | None, calls: Sequence[VarlenCall]
) -> str:
    """Why it does not serve this model here, empty where it may. ``capability``: of the CUDA device, None without."""
    if capability is None:
        return "no CUDA device"
    if capability < BF16_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]}, it needs 8.0"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it does not compute {str(dtype).removeprefix('torch.')}"
    if d.relative_buckets:
        return "the model adds a bias to its scores"
    if d.head_dim % 8 or d.head_dim > _WIDEST_HEAD:
        return f"heads of {d.head_dim}, it takes multiples of 8 up to {_WIDEST_HEAD}"
    if not calls:
        return "this PyTorch has no torch.nn.attention.varlen"
    if not calls[0].windows and any(layer.window is not None for layer in d.layers):
        return "varlen_attn of this PyTorch has no windows"
    return ""


def choose_attention(
    d: EncoderDescription,
    relative: Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
    capability: tuple[int, int] | None,
) -> Attention:
    """Varlen where it serves the model and passes its trial, else groups; the log says why."""
    calls = varlen_calls()
    why = why_not_varlen(d, dtype, capability, calls)
    if not why:
        for call in calls:
            why = trial(d, call, device, dtype)
            if not why:
                return VarlenAttention(d, call)
    log.info("attention runs in padded groups, not by varlen_attn: %s", why)
    return GroupedAttention(d, relative)


def trial(
    d: EncoderDescription,
    call: Callable[[Tensor, Tensor, int, tuple[int, int]], Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> str:
    """Run it on a few random texts, in each kind of layer that the model has, with ends repeated as a CUDA graph has
    them; empty when it says what the grouped way says."""
    lengths = [min(length, d.max_positions) for length in _TRIED_LENGTHS]
    frame = Frame(sum(lengths) + 8, len(lengths) + 2)
    places = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int32)
    packed = pack(TokenBatch(np.zeros((1, sum(lengths)), np.int32), np.array(lengths, np.int32), places=places))
    block = np.empty(frame.size, np.int32)
    fill(block, frame, packed)
    feed = feed_of(torch.from_numpy(block).to(device), frame)
    values = np.random.default_rng(0).standard_normal((frame.tokens, 3, d.heads, d.head_dim), np.float32)
    qkv = torch.from_numpy(values).to(device, dtype)
    one = VarlenAttention(d, call).prepare(feed, d.max_positions)
    other = GroupedAttention(d, None).prepare(feed, max(lengths), packed)
    try:
        for spec in {reach(layer, causal=d.causal): layer for layer in d.layers}.values():
            found, expected = one(qkv, spec)[: packed.tokens], other(qkv[: packed.tokens], spec)
            cosine = float(functional.cosine_similarity(found.float(), expected.float()).min())
            if not cosine >= _TRIED_BOUND:
                return f"its result is wrong here, cosine {cosine:.4f}"
    # Whatever a kernel or a signature that we have not met says, there is another way.
    except (RuntimeError, TypeError, ValueError) as error:
        return f"it failed its trial: {' '.join(str(error).split())[:200]}"
    return ""
