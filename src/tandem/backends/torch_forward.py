"""The forward pass as a whole, on one device: encoder, attention and pooling; and the memory that it takes there."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import torch
from torch import Tensor

from tandem.backends.torch_attention import Attention
from tandem.backends.torch_module import Attend, Feed, PackedEncoder
from tandem.backends.torch_packing import Packed
from tandem.backends.torch_pooling import DevicePooler
from tandem.backends.torch_varlen import choose_attention
from tandem.backends.torch_weights import EncoderWeights, Tensors, load, weight_bytes
from tandem.models.description import EncoderDescription


class TorchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``graph_tokens``: record CUDA graphs for batches of up to so many tokens, where they prove faster; 0: none.
    ``compile``: the encoder by torch.compile. ``fused_gelu``: see ``PackedEncoder``. These two are off until ``tandem
    bench gpu`` has shown on real GPUs that they pay."""

    graph_tokens: int = 16384
    compile: bool = False
    fused_gelu: bool = False


class Forward:
    """From a feed to rows or states, on the feed's device and its current stream."""

    def __init__(
        self, d: EncoderDescription, weights: EncoderWeights, attention: Attention, options: TorchOptions
    ) -> None:
        encoder: Callable[[Feed, Attend], Tensor] = PackedEncoder(d, weights, fused_gelu=options.fused_gelu)
        self._encode = torch.compile(encoder, dynamic=True) if options.compile else encoder
        self._attention = attention
        self._pool = DevicePooler(d, weights.dense)
        self.static = attention.static
        self.by_length = attention.by_length

    def states(self, feed: Feed, longest: int, packed: Packed | None = None) -> Tensor:
        """[tokens, hidden] in the tier's type. ``longest``: a text's tokens, at most."""
        return self._encode(feed, self._attention.prepare(feed, longest, packed))

    def rows(self, feed: Feed, longest: int, packed: Packed | None = None) -> Tensor:
        """float32 [texts, dims], not normalised."""
        return self._pool(self.states(feed, longest, packed), feed)


def make_forward(
    d: EncoderDescription,
    weights: Tensors,
    device: torch.device,
    dtype: torch.dtype,
    capability: tuple[int, int] | None,
    options: TorchOptions,
) -> Forward:
    """Load the weights and choose the attention. Raises RuntimeError when they do not fit."""
    loaded = load(d, weights, device, dtype)
    return Forward(d, loaded, choose_attention(d, loaded.relative, device, dtype, capability), options)


def needed_bytes(d: EncoderDescription, itemsize: int, tokens: int) -> int:
    """Weights, and the activations of a batch of ``tokens``, in bytes; ``itemsize`` of the tier's type.

    At its widest a layer holds the residual, the block's input and, in attention, query, key, value and their mix, or,
    in the MLP, the inner activation before and after its function. Pooling holds the states in float32.
    """
    inner = d.intermediate * (3 if d.gated else 2)
    widest = 2 * d.hidden + max(4 * d.hidden, inner + d.hidden)
    return weight_bytes(d, itemsize) + tokens * (widest * itemsize + 4 * d.hidden)
