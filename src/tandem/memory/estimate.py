"""What a batch will need at its peak, in bytes: a guess from the encoder's shape, corrected by measured peaks.

``peak = fixed + a * tokens + b * squares + c * texts``. Tokens are those computed, padding counted. Squares are, for
each token, the width of its row: the attention scores, where an engine writes them out; an engine that does not, as
OpenVINO or a flash kernel, shows b = 0 once it is measured. A layer's activations reuse the memory of the layer before,
so the number of layers does not enter.
"""

from __future__ import annotations

from itertools import product

import msgspec
import numpy as np
from numpy.typing import NDArray

# In activations of one token that live at once: the layer's input, query, key and value, each a second time in the
# order that attention wants, and its output; and the MLP's inner rows, before and after the activation function, and
# once more as the engine does not reuse all it could. That is 20 rows of MiniLM's hidden size, where OpenVINO in fp32
# shows 14 and ONNX Runtime 29.
_HIDDEN_ROWS, _INNER_ROWS = 8, 3
# Scores before and after the softmax.
_SCORES = 2
# How firmly the guess stands against measurements: one as heavy as a hundredth of a measured peak.
_RIDGE = 1e-4
_COMMON = np.array([1.0, 512.0, 512.0 * 64.0, 16.0])


class EncoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of an encoder that its memory depends on. ``dims``: of a pooled row; ``element_bytes``: of an
    activation; ``gated``: the MLP has a second inner row; ``scores``: the engine may write attention scores out, which
    is guessed of those that are not known not to."""

    hidden: int
    heads: int
    intermediate: int
    dims: int
    gated: bool = False
    element_bytes: int = 4
    scores: bool = True


class Footprint(msgspec.Struct, frozen=True):
    """The four coefficients, in bytes, none below zero."""

    fixed_bytes: float
    per_token_bytes: float
    per_square_bytes: float
    per_text_bytes: float

    def peak_bytes(self, tokens: float, squares: float, texts: float) -> float:
        """Of a batch with so many ``tokens``, padding counted; ``squares``: the sum over them of their row's width."""
        return (
            self.fixed_bytes
            + tokens * self.per_token_bytes
            + squares * self.per_square_bytes
            + texts * self.per_text_bytes
        )


def guess(shape: EncoderShape) -> Footprint:
    """The footprint of an encoder that nobody has run yet."""
    inner = shape.intermediate * (_INNER_ROWS + shape.gated)
    return Footprint(
        fixed_bytes=0.0,
        per_token_bytes=float(shape.element_bytes * (_HIDDEN_ROWS * shape.hidden + inner)),
        per_square_bytes=float(shape.element_bytes * _SCORES * shape.heads * shape.scores),
        per_text_bytes=4.0 * 2 * shape.dims,
    )


class PeakModel:
    """A footprint that learns: least squares in relative error, drawn to the guess where measurements say nothing.

    Four peaks (``measure.peak_bytes``) will do: of narrow and of wide rows, and of half and of all of a full batch.
    """

    def __init__(self, prior: Footprint) -> None:
        self.footprint = prior
        self._prior = np.array(msgspec.structs.astuple(prior)) * _COMMON
        self._seen: list[NDArray[np.float64]] = []

    @property
    def measured(self) -> int:
        """How many peaks it has seen."""
        return len(self._seen)

    def observe(self, tokens: int, squares: float, texts: int, peak_bytes: float) -> None:
        """One batch's measured peak, over what the engine had before it; a peak of 0 says nothing."""
        if peak_bytes > 0:
            # A row of x . theta = 1: errors count in parts of the peak.
            self._seen.append(np.array([1.0, tokens, squares, texts]) / _COMMON / peak_bytes)
            self.footprint = self._fit()

    def _fit(self) -> Footprint:
        rows = np.array(self._seen)
        # In units of the guess, where that has any, so that one ridge suits all four.
        scale = np.maximum(self._prior, self._prior.max() * 1e-3)
        x = rows * scale
        start = self._prior / scale
        normal = x.T @ x + _RIDGE * np.eye(4)
        moment = x.sum(axis=0) + _RIDGE * start
        return Footprint(*(_not_negative(normal, moment) * scale / _COMMON).tolist())


def _not_negative(normal: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least of theta' normal theta / 2 - moment' theta over theta >= 0, exactly: with four coefficients there are
    sixteen choices of those that are not zero, and the least is the free optimum of its own choice."""
    best, lowest = np.zeros(len(moment)), 0.0
    for chosen in product((False, True), repeat=len(moment)):
        free = np.array(chosen)
        theta = np.zeros(len(moment))
        theta[free] = np.linalg.solve(normal[np.ix_(free, free)], moment[free])
        value = float(theta @ normal @ theta / 2 - moment @ theta)
        if theta.min() >= 0 and value < lowest:
            best, lowest = theta, value
    return best
