"""From the hidden states of packed rows to one row a text: sentence-transformers' pooling modes and dense heads.

On the host and not in the graph: a graph would need the place of each text as an input of changing shape. For 1,024
tokens it costs half a millisecond beside the 60 of the forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandem.models.description import EncoderDescription
from tandem.models.reference import project
from tandem.types import TokenBatch

Floats = NDArray[np.float32]


class Pooler:
    """Pools and projects by a description; holds the dense heads' weights."""

    def __init__(self, description: EncoderDescription, weights: Mapping[str, NDArray[Any]]) -> None:
        self._d = description
        self._heads = {name: weights[name] for name in weights if name.startswith("dense.")}

    def __call__(self, states: Floats, batch: TokenBatch) -> Floats:
        """``states`` float32 [rows, s, hidden] -> [n, dims]."""
        spans = _Spans(states.reshape(-1, states.shape[-1]), batch)
        parts = [_MODES[mode](spans) for mode in self._d.pooling]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        found: Floats = project(self._d, self._heads, rows).astype(np.float32, copy=False)
        return found


class _Spans:
    """The pooled places of each text: from ``first`` (int [n]) on, ``counts`` (int [n]) of them, in ``flat``."""

    def __init__(self, flat: Floats, batch: TokenBatch) -> None:
        starts, lengths = batch.starts(), batch.lengths
        # A prompt that fills its text leaves the last token to pool.
        skipped = np.zeros_like(lengths) if batch.skips is None else np.minimum(batch.skips, lengths - 1)
        self.flat = flat
        self.skipped = skipped
        self.first = starts + skipped
        self.last = starts + lengths - 1
        self.counts = lengths - skipped
        self.edges = np.cumsum(self.counts) - self.counts

    def upward(self) -> NDArray[np.int64]:
        """0, 1, ... for each text's pooled places, one text after the other."""
        found: NDArray[np.int64] = np.arange(int(self.counts.sum())) - np.repeat(self.edges, self.counts)
        return found

    def states(self) -> Floats:
        """The pooled places' states, one text after the other."""
        return self.flat[np.repeat(self.first, self.counts) + self.upward()]

    def sums(self, states: Floats) -> Floats:
        found: Floats = np.add.reduceat(states, self.edges, axis=0)
        return found

    def per_text(self, values: NDArray[Any]) -> Floats:
        return values.astype(np.float32)[:, None]


def _mean(t: _Spans) -> Floats:
    return t.sums(t.states()) / t.per_text(t.counts)


def _mean_sqrt_len(t: _Spans) -> Floats:
    roots: Floats = np.sqrt(t.per_text(t.counts))
    return t.sums(t.states()) / roots


def _weighted_mean(t: _Spans) -> Floats:
    # A token weighs its place in the whole text, skipped ones counted: as sentence-transformers does.
    weights = t.upward() + np.repeat(t.skipped, t.counts) + 1
    totals = np.add.reduceat(weights, t.edges)
    return t.sums(t.states() * t.per_text(weights)) / t.per_text(totals)


def _max(t: _Spans) -> Floats:
    found: Floats = np.maximum.reduceat(t.states(), t.edges, axis=0)
    return found


_MODES = {
    "cls": lambda t: t.flat[t.first],
    "last": lambda t: t.flat[t.last],
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
}
