"""From packed hidden states to one row a text, on the device: only rows go back to the host.

Sums run over each text's own tokens in their order (segment_reduce), in float32: the same bits in any company, nothing
read from places that belong to no text, and no difference of two large sums as with cumulative ones. Rejected:
index_add, whose order on CUDA changes from run to run; a product with a 0-1 matrix, which reads every place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tandem.backends.torch_module import Feed
from tandem.backends.torch_weights import Linear
from tandem.models.description import EncoderDescription

_HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


class DevicePooler:
    """Pools and projects by a description."""

    def __init__(self, d: EncoderDescription, dense: tuple[Linear, ...]) -> None:
        self._d = d
        self._dense = dense

    def __call__(self, states: Tensor, feed: Feed) -> Tensor:
        """``states`` [tokens, hidden] -> float32 [texts, dims]; rows of left-over texts hold anything."""
        spans = _Spans(states, feed, skips=self._d.skips_prompt)
        parts = [_MODES[mode](spans) for mode in self._d.pooling]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        for linear, head in zip(self._dense, self._d.dense, strict=True):
            rows = _HEADS[head.activation](functional.linear(rows, linear.weight, linear.bias))
        return rows


class _Spans:
    """The pooled tokens of each text."""

    def __init__(self, states: Tensor, feed: Feed, *, skips: bool) -> None:
        self._states = states
        self._feed = feed
        self._skips = skips

    def at(self, places: Tensor) -> Tensor:
        return self._states.index_select(0, places).float()

    def reduced(self, how: str, weights: Tensor | None = None) -> Tensor:
        """float32 [texts, hidden]. With skips every other segment is a prompt, which is computed and left."""
        states = self._states.float()
        if weights is not None:
            states = states * weights[:, None]
        offsets = self._feed.edges if self._skips else self._feed.ends
        found = torch.segment_reduce(states, how, offsets=offsets, unsafe=True)
        return found[1::2] if self._skips else found

    @property
    def first(self) -> Tensor:
        return self._feed.first

    @property
    def last(self) -> Tensor:
        return self._feed.last

    @property
    def counts(self) -> Tensor:
        """float32 [texts, 1]."""
        return (self._feed.last - self._feed.first + 1).float()[:, None]

    @property
    def weights(self) -> Tensor:
        """A token weighs its place in the whole text, skipped ones counted: as sentence-transformers does."""
        return (self._feed.positions + 1).float()

    def total_weight(self) -> Tensor:
        """The sum of a text's weights from its first pooled token to its last: float32 [texts, 1]."""
        low, high = (self._feed.positions.index_select(0, places).float() for places in (self.first, self.last))
        return ((high + low + 2) * (high - low + 1) / 2)[:, None]


_MODES: dict[str, Callable[[_Spans], Tensor]] = {
    "cls": lambda t: t.at(t.first),
    "last": lambda t: t.at(t.last),
    "max": lambda t: t.reduced("max"),
    "mean": lambda t: t.reduced("sum") / t.counts,
    "mean_sqrt_len": lambda t: t.reduced("sum") / t.counts.sqrt(),
    "weightedmean": lambda t: t.reduced("sum", t.weights) / t.total_weight(),
}
