"""What a batch costs on a device, learned as it runs.

``t = c0 + c1 * padded tokens + c2 * sum of squared lengths + c3 * texts``, fitted by recursive least squares with
forgetting (Haykin, Adaptive Filter Theory, ch. 10; here in information form with a ridge towards the prior, so that
directions which the traffic never shows stay where they were).
"""

from __future__ import annotations

import numpy as np

from tandem.types import Outcome

# Seconds: a batch's fixed cost, a token, a squared length, a text. A mid-size model on one CPU core; a few batches
# outweigh it.
_PRIOR = np.array([1.3e-3, 7.0e-5, 1.0e-8, 1.0e-5])
# Brings the four features of a common batch to about 1, so that one ridge fits all.
_SCALE = np.array([1.0, 500.0, 50_000.0, 20.0])
_FORGET = 0.995
_RIDGE = 0.05


class CostModel:
    """One device's cost. ``token_s``: seconds a token in a batch of common size, its fixed cost shared out."""

    def __init__(self) -> None:
        self._prior = _PRIOR * _SCALE
        self._information = np.eye(4) * _RIDGE
        self._moment = self._information @ self._prior
        self._theta = self._prior.copy()
        self.token_s = self._token_s()

    def observe(self, outcome: Outcome) -> None:
        """Learn from a batch; a failed one says nothing about cost."""
        if not outcome.ok:
            return
        x = np.array([1.0, outcome.padded_tokens, outcome.sum_squares, outcome.n]) / _SCALE
        # Relative error counts: a batch of 1 ms and one of 100 ms teach the same.
        weight = 1.0 / max(outcome.seconds, 1e-4) ** 2
        scaled = weight * self._reference() ** 2
        self._information = _FORGET * self._information + scaled * np.outer(x, x)
        self._moment = _FORGET * self._moment + scaled * x * outcome.seconds
        ridge = np.eye(4) * _RIDGE
        self._theta = np.maximum(
            np.linalg.solve(self._information + ridge, self._moment + ridge @ self._prior), self._prior * 1e-3
        )
        self.token_s = self._token_s()

    def seconds(self, padded_tokens: float, sum_squares: float, n: float) -> float:
        """The predicted time of one batch."""
        return float(self._theta @ (np.array([1.0, padded_tokens, sum_squares, n]) / _SCALE))

    def _token_s(self) -> float:
        return self.seconds(512.0, 512.0 * 48.0, 10.0) / 512.0

    def _reference(self) -> float:
        return float(self._theta @ np.array([1.0, 1.0, 1.0, 1.0]))
