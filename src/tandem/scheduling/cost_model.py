"""What a batch costs on a device, learned as it runs.

``t = c0 + c1 * tokens + c2 * sum of squared lengths + c3 * texts``, fitted by recursive least squares with
forgetting (Haykin, Adaptive Filter Theory, ch. 10; here in information form with a ridge towards the prior, so that
directions which the traffic never shows stay where they were). The sums are kept in plain Python and solved once in a
few batches: with numpy for each batch, learning cost as much as all the rest of the scheduler.

Tokens are counted without padding, as they are when a prediction is asked for: a lone question of 11 tokens in a row of
16 must be expected to take what it takes. (Learned from padded tokens, a CPU expected its small batches to end in 57 %
of their time, and beside a GPU took texts that it answered later: p99 4 % up, in simulation.) ``overrun`` is measured
against the prediction that dispatchers use, by tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from tandem.types import Outcome

# Brings the four features of a common batch to about 1, so that one ridge fits all.
_SCALE = (1.0, 500.0, 50_000.0, 20.0)
_FORGET = 0.995
_RIDGE = 0.05
# Batches learned one by one, then so many at a time.
_EAGER = 16
_STRIDE = 16
# No batch is believed to have been so many times faster than those before it.
_FASTEST = 20.0
# The share of batches that take no longer than ``bound`` says, and how fast it is followed.
_QUANTILE = 0.9
_STEP = 0.02


class Cost(msgspec.Struct, frozen=True):
    """Seconds: ``fixed_s`` a batch, ``token_s`` a token, ``square_s`` a squared length, ``text_s`` a text."""

    fixed_s: float
    token_s: float
    square_s: float = 0.0
    text_s: float = 0.0

    def seconds(self, tokens: float, sum_squares: float, n: float) -> float:
        """The time of one batch."""
        return self.fixed_s + self.token_s * tokens + self.square_s * sum_squares + self.text_s * n


# A mid-size model on one CPU core; a few batches outweigh it.
CPU_PRIOR = Cost(fixed_s=1.3e-3, token_s=7.0e-5, square_s=1.0e-8, text_s=1.0e-5)
# The same on a data-centre GPU, as published figures have it.
GPU_PRIOR = Cost(fixed_s=2.0e-3, token_s=1.0e-6, square_s=1.0e-10, text_s=1.0e-6)

# The usual text, which turns tokens into squares and texts where only tokens are known.
_USUAL_TOKENS = 48.0
_COMMON_BATCH = 512.0


class CostModel:
    """One device's cost. ``token_s``: seconds a token in a batch of common size, its fixed cost shared out."""

    def __init__(self, prior: Cost = CPU_PRIOR) -> None:
        self._prior = prior
        self._scaled_prior = np.array(msgspec.structs.astuple(prior)) * _SCALE
        self._information = [_RIDGE if i % 5 == 0 else 0.0 for i in range(16)]
        self._moment = [_RIDGE * value for value in self._scaled_prior.tolist()]
        self._seen = 0
        self._common_s = prior.seconds(*_SCALE[1:])
        self._overrun = 1.0
        self.cost = prior
        self.token_s = self._token_s()

    def observe(self, outcome: Outcome) -> None:
        """Learn from a batch; a failed one says nothing about cost."""
        if not outcome.ok:
            return
        seconds = max(outcome.seconds, 1e-7)
        if self._seen > _EAGER:
            # Short times weigh most, so that one which can not be would be remembered for long.
            seconds = max(seconds, self.seconds(outcome.tokens, outcome.sum_squares, outcome.n) / _FASTEST)
        self._follow(seconds / self.for_tokens(outcome.tokens))
        self._add((1.0, outcome.tokens / 500.0, outcome.sum_squares / 50_000.0, outcome.n / 20.0), seconds)
        self._seen += 1
        if self._seen <= _EAGER or self._seen % _STRIDE == 0:
            self._solve()

    def seconds(self, tokens: float, sum_squares: float, n: float) -> float:
        """The predicted time of one batch."""
        return self.cost.seconds(tokens, sum_squares, n)

    def for_tokens(self, tokens: float) -> float:
        """The predicted time of a batch of so many tokens in texts of the usual length."""
        return self.cost.seconds(tokens, tokens * _USUAL_TOKENS, tokens / _USUAL_TOKENS)

    def tokens_in(self, seconds: float) -> float:
        """The inverse of ``for_tokens``: how large a batch takes no longer; 0 where even an empty one does."""
        return max(0.0, (seconds - self.cost.fixed_s) / self._marginal_s())

    @property
    def worth_tokens(self) -> float:
        """The tokens that a batch's fixed cost is worth."""
        return self.cost.fixed_s / self._marginal_s()

    @property
    def overrun(self) -> float:
        """At least 1: nine of ten batches take no longer than that many times their prediction."""
        return self._overrun

    def _marginal_s(self) -> float:
        return self.cost.token_s + self.cost.square_s * _USUAL_TOKENS + self.cost.text_s / _USUAL_TOKENS

    def _follow(self, ratio: float) -> None:
        """A quantile by stochastic approximation (Robbins and Monro, 1951)."""
        step = _STEP * (_QUANTILE if ratio > self._overrun else _QUANTILE - 1.0)
        self._overrun = min(4.0, max(1.0, self._overrun + step))

    def _add(self, x: Sequence[float], seconds: float) -> None:
        # Relative error counts: a batch of 1 ms and one of 100 ms teach the same.
        weight = (self._common_s / seconds) ** 2
        information, moment = self._information, self._moment
        for i in range(4):
            scaled = weight * x[i]
            moment[i] = _FORGET * moment[i] + scaled * seconds
            for j in range(i, 4):
                information[4 * i + j] = _FORGET * information[4 * i + j] + scaled * x[j]

    def _solve(self) -> None:
        upper = np.array(self._information).reshape(4, 4)
        whole = upper + np.triu(upper, 1).T + np.eye(4) * _RIDGE
        theta = np.linalg.solve(whole, np.array(self._moment) + _RIDGE * self._scaled_prior)
        theta = np.maximum(theta, self._scaled_prior * 1e-3)
        self.cost = Cost(*(theta / _SCALE).tolist())
        self._common_s = self.cost.seconds(*_SCALE[1:])
        self.token_s = self._token_s()

    def _token_s(self) -> float:
        return self.for_tokens(_COMMON_BATCH) / _COMMON_BATCH
