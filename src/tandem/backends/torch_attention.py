"""Attention among texts that lie end to end: the contract, and the way that works on any device.

``GroupedAttention`` serves CPUs, float32 and MPNet's relative bias; ``torch_varlen`` everything else. Texts come
sorted by length, those of similar length are padded to a rectangle, and scaled_dot_product_attention runs once a
rectangle. A group in which all texts have one length needs neither padding nor mask. Rejected: one rectangle for the
batch, which pads by the longest text; nested tensors, which choose their kernels by rules that change by release.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tandem.backends.torch_module import Attend, Feed
from tandem.backends.torch_packing import Packed
from tandem.models.description import EncoderDescription, LayerSpec

# A group's shortest text has this share of its longest one's length, so that at most so much of a rectangle is padding.
_SIMILAR = 0.8
# Up to this width a rectangle costs its launch and not its size.
_SMALL = 16


class Attention(Protocol):
    """``static``: what ``prepare`` gives reads nothing of the batch but the feed's tensors, so that one recording of it
    serves other batches. ``by_length``: texts must come shortest first."""

    static: bool
    by_length: bool

    def prepare(self, feed: Feed, longest: int, packed: Packed | None) -> Attend:
        """The attention of one batch, for each layer. ``longest``: a text's tokens, at most. ``packed``: the batch as
        the host knows it; may be None where ``static``."""
        ...


def reach(spec: LayerSpec, *, causal: bool) -> tuple[int, int]:
    """How many places a token sees to its left and to its right, -1 for all."""
    width = -1 if spec.window is None else spec.window
    return width, 0 if causal else width


class GroupedAttention:
    """One rectangle for each group of texts of similar length."""

    static = False
    by_length = True

    def __init__(self, d: EncoderDescription, relative: Tensor | None) -> None:
        self._d = d
        self._bias = None if relative is None else _relative_bias(d, relative)

    def prepare(self, feed: Feed, longest: int, packed: Packed | None) -> Attend:
        assert packed is not None
        device = feed.ids.device
        groups = [_group(packed, start, stop, device) for start, stop in similar(packed.lengths)]
        masks: dict[tuple[int, int], list[Tensor | None]] = {}

        def attend(qkv: Tensor, spec: LayerSpec) -> Tensor:
            seen = reach(spec, causal=self._d.causal)
            if seen not in masks:
                masks[seen] = [self._mask(group, seen, device) for group in groups]
            parts = [_mix(qkv, group, mask) for group, mask in zip(groups, masks[seen], strict=True)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        return attend

    def _mask(self, group: _Group, seen: tuple[int, int], device: torch.device) -> Tensor | None:
        """What is added to the scores, or which places are seen: broadcasts to [texts, heads, width, width]."""
        visible = _visible(group.width, seen, device)
        if group.real is not None:
            visible = group.real if visible is None else visible & group.real
        if self._bias is None:
            return visible
        bias = self._bias[:, : group.width, : group.width]
        return bias[None] if visible is None else bias.masked_fill(~visible, -math.inf)


class _Group(NamedTuple):
    """Texts whose tokens lie from ``start`` to ``stop``, as a rectangle ``texts`` by ``width``. Where lengths differ:
    ``spread`` [texts * width], the token at each place; ``back`` [tokens], the place of each token; ``real`` bool
    [texts, 1, 1, width]; else None."""

    start: int
    stop: int
    texts: int
    width: int
    spread: Tensor | None = None
    back: Tensor | None = None
    real: Tensor | None = None


def similar(lengths: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Cut ascending lengths into runs that lie close enough to share a rectangle."""
    found, start = [], 0
    while start < len(lengths):
        most = max(_SMALL, int(lengths[start] / _SIMILAR))
        stop = int(np.searchsorted(lengths, most, side="right"))
        found.append((start, stop))
        start = stop
    return found


def _group(packed: Packed, start: int, stop: int, device: torch.device) -> _Group:
    lengths = packed.lengths[start:stop]
    width, texts = int(lengths[-1]), stop - start
    first, last = int(packed.ends[start]), int(packed.ends[stop])
    if int(lengths[0]) == width:
        return _Group(first, last, texts, width)
    inner = packed.ends[start:stop, None] - first
    along = np.arange(width, dtype=np.int32)
    real = along < lengths[:, None]
    spread = np.where(real, inner + along, inner)
    back = np.flatnonzero(real)

    def move(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return _Group(first, last, texts, width, move(spread.ravel()), move(back), move(real[:, None, None]))


def _mix(qkv: Tensor, group: _Group, mask: Tensor | None) -> Tensor:
    """[tokens of the group, heads * head_dim]."""
    part = qkv[group.start : group.stop]
    if group.spread is not None:
        part = part.index_select(0, group.spread)
    query, key, value = part.view(group.texts, group.width, *qkv.shape[1:]).permute(2, 0, 3, 1, 4).unbind()
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    mixed = mixed.transpose(1, 2).reshape(group.texts * group.width, -1)
    return mixed if group.back is None else mixed.index_select(0, group.back)


def _visible(width: int, seen: tuple[int, int], device: torch.device) -> Tensor | None:
    """bool [width, width], None when every place sees every other."""
    left, right = (count if 0 <= count < width - 1 else width for count in seen)
    if left == right == width:
        return None
    ones = torch.ones(width, width, dtype=torch.bool, device=device)
    return ones.tril_(right).triu_(-left)


def _relative_bias(d: EncoderDescription, table: Tensor) -> Tensor:
    """T5's bias [heads, max_positions, max_positions] from its table [buckets, heads]: the row of a pair's distance."""
    size = d.max_positions
    distance = np.arange(size)[None, :] - np.arange(size)[:, None]
    buckets = torch.from_numpy(relative_buckets(distance, d.relative_buckets, d.relative_max_distance)).to(table.device)
    return table[buckets].permute(2, 0, 1).contiguous()


def relative_buckets(distance: NDArray[np.int64], buckets: int, max_distance: int) -> NDArray[np.int64]:
    """The bucket of each distance (key minus query): half of them for either side; of these, half one distance each,
    half in steps of the logarithm up to ``max_distance`` (arXiv:1910.10683)."""
    side = buckets // 2
    exact = side // 2
    away = np.abs(distance)
    # In float32, as transformers has it: at 16, 32 and 64 tokens the logarithm stands on the edge of a bucket.
    steps = np.log(np.maximum(away, 1).astype(np.float32) / exact) / math.log(max_distance / exact) * (side - exact)
    coarse = np.minimum(exact + steps.astype(np.int64), side - 1)
    return np.where(away < exact, away, coarse) + np.where(distance > 0, side, 0)
