"""A score learned from several signals at once, and the threshold on it that keeps a promise.

One number seldom says best whether an answer fits: cosine, shared words and rare words that differ say it better
together. Logistic regression weighs them. The labels are divided, so that the proof stays honest: every third fits the
weights, the others, which the fit never saw, prove the threshold exactly as ``learner.py`` does for a plain score.
Given the weights, their scores are as good a sample as any. The first signal alone, which needs no fit and so has all
labels to prove it, is tried beside them; while labels are few it is all there is.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tandem.verification.base import LearnerOptions, Promise, Report
from tandem.verification.learner import Learned, describe, is_due, learn

Features: TypeAlias = Sequence[float]
"""Signals of one answer, finite, always as many; the first is the one to trust while labels are few."""

_FIT_EVERY = 3
_MIN_FIT = 300
# What decides is the order among the surest. So the fit looks at the labels that the first signal puts highest, down to
# where their share of wrong is 1.5 times the one promised; all of them would teach what tells a stranger from a
# neighbour: tried on QQP at 10 % wrong, that served less than the cosine alone.
_REGION = 1.5
_MIN_REGION = 100
_NEWTON_STEPS = 25
_CONVERGED = 1e-6
# A Gaussian prior on the weights of standardised signals, of this precision (ridge: Hoerl and Kennard, Technometrics
# 1970), around 1 for the first and 0 for the others: few labels, or labels all alike, leave the order of the first.
_PRECISION = 20.0
# The constant has a prior only to keep labels that are all alike from driving it without end.
_PRECISION_OF_CONSTANT = 1e-3


class Weights:
    """Signals to one score: the log-odds of being right, as far as the fit knows."""

    def __init__(self, features: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
        """From ``features`` [n, f], n >= 1, and ``right`` [n]."""
        self._mean = features.mean(axis=0)
        deviation = features.std(axis=0)
        # What never varied says nothing, also when it varies one day.
        self._scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0)
        self._weights = _logistic(self._inputs(features), right.astype(np.float64))

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, f] to [n]."""
        return np.asarray(self._inputs(features) @ self._weights)

    def _inputs(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([(features - self._mean) * self._scale, np.ones(len(features))])


class FeatureLearner:
    """Keeps the latest labels, the weights that a third of them give and the threshold that the others prove."""

    def __init__(self, promise: Promise, options: LearnerOptions | None = None) -> None:
        self.promise = promise
        self._options = options or LearnerOptions()
        # As bytes, a third of what tuples of floats take: there may be thousands of learners.
        self._signals: deque[bytes] = deque(maxlen=self._options.window)
        self._right: deque[bool] = deque(maxlen=self._options.window)
        self._weights: Weights | None = None
        self._learned: Learned | None = None
        self._unlearned = 0
        self._seen = 0

    def __len__(self) -> int:
        return len(self._right)

    def observe(self, evidence: Features, right: bool) -> None:
        """A label; whether it is asked for must not depend on its signals. Raises ValueError for signals
        that are not finite, or not as many as before."""
        if not all(map(math.isfinite, evidence)):
            raise ValueError(f"signals must be finite, got {list(evidence)}")
        signals = array("d", evidence).tobytes()
        if self._signals and len(self._signals[-1]) != len(signals):
            raise ValueError(f"there were {len(self._signals[-1]) // 8} signals so far, now there are {len(evidence)}")
        self._signals.append(signals)
        self._right.append(right)
        self._seen += 1
        self._unlearned += 1
        if is_due(self._unlearned, len(self), self._options):
            self.relearn()

    def relearn(self) -> None:
        """Learn from the labels as they are now."""
        self._unlearned = 0
        if not self._right:
            return
        right = np.array(self._right, np.bool_)
        features = np.frombuffer(b"".join(self._signals), np.float64).reshape(len(right), -1)
        self._weights = None
        if len(right) < _FIT_EVERY * _MIN_FIT:
            self._learned = learn(features[:, 0], ~right, self.promise)
            return
        # Two ways are tried, each at half of delta, so that the one that serves more may be taken. The first signal
        # alone has all labels to prove it, which counts where the promise is hard to prove.
        half = Promise(self.promise.max_error, 1 - self.promise.delta / 2)
        self._learned = learn(features[:, 0], ~right, half)
        # Counted from the first label ever, so that a label does not change sides when the window moves.
        fits = (np.arange(len(right)) + self._seen - len(right)) % _FIT_EVERY == 0
        region = _region(features[fits, 0], right[fits], _REGION * self.promise.max_error)
        weights = Weights(features[fits][region], right[fits][region])
        weighed = learn(weights.score(features[~fits]), ~right[~fits], half)
        plainly = self._learned.served / len(right) if self._learned else 0.0
        if weighed is not None and weighed.served / int((~fits).sum()) > plainly:
            self._weights, self._learned = weights, weighed

    def forget(self) -> None:
        """Drop all labels, and with them weights and threshold."""
        self._signals.clear()
        self._right.clear()
        self._weights = self._learned = None
        self._unlearned = 0

    def serves(self, evidence: Features) -> bool:
        """Whether an answer with these signals keeps the promise."""
        return self._learned is not None and self.score(evidence) >= self._learned.threshold

    def score(self, evidence: Features) -> float:
        """What answers are ordered by, the higher the surer: the first signal where that alone decides, else the
        log-odds of being right."""
        return float(self.scores(np.array([evidence], np.float64))[0])

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of many: [n, f] to [n]."""
        return features[:, 0] if self._weights is None else self._weights.score(features)

    def threshold(self) -> float | None:
        """The least that is served: of the first signal where that alone decides, else of the estimated probability of
        being right. None: serve nothing."""
        if self._learned is None or self._weights is None:
            return None if self._learned is None else self._learned.threshold
        return float(1 / (1 + np.exp(-np.clip(self._learned.threshold, -700, 700))))

    def report(self) -> Report:
        """What was known when it last learned."""
        return describe(self.promise, len(self), self.threshold(), self._learned)


def _region(signal: NDArray[np.float64], right: NDArray[np.bool_], share: float) -> NDArray[np.intp]:
    """Indices of the highest of ``signal``: as many as hold at most ``share`` of wrong, but enough to learn from."""
    order = np.argsort(-signal, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(wrong <= share)
    return order[: max(_MIN_REGION, int(good[-1]) + 1 if good.size else 0)]


def _logistic(inputs: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The posterior mode [f + 1] by Newton's method; the last input is the constant 1."""
    prior = np.zeros(inputs.shape[1])
    prior[0] = 1.0
    precision = np.full(inputs.shape[1], _PRECISION)
    precision[-1] = _PRECISION_OF_CONSTANT
    weights = prior.copy()
    for _ in range(_NEWTON_STEPS):
        odds = np.clip(inputs @ weights, -30, 30)
        probability = 1 / (1 + np.exp(-odds))
        slope = inputs.T @ (probability - right) + precision * (weights - prior)
        curvature = (inputs * (probability * (1 - probability))[:, None]).T @ inputs + np.diag(precision)
        step = np.linalg.solve(curvature, slope)
        weights -= np.clip(step, -5, 5)
        if np.abs(step).max() < _CONVERGED:
            break
    return weights
