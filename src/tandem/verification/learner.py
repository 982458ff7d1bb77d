"""The loosest threshold that keeps a promise, learned from labels.

Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test: calibrating predictive algorithms to
achieve risk control", Annals of Applied Statistics 2025, arXiv 2110.01052), for the share of wrong *among those
served*. For a threshold t the null hypothesis is "more than ``max_error`` of what scores over t is wrong". Its p-value
is exact: of the n labels over t, k are wrong, and P(Binomial(n, max_error) <= k) is the chance of so few under the
null. Thresholds are tested from strict to loose, and the first that can not be rejected ends the sequence, so no
correction for their number is due (fixed-sequence testing).

**The sequence** follows ranks: the m-th highest score is a threshold, m = 60, 66, 73, ... A fixed grid of cosines would
be too coarse for one model and empty for another. Given the m-th highest score, what lies strictly above it is a plain
sample of all that ever will, so each p-value stays exact although the threshold is itself drawn.

**Several starts.** The strictest threshold that could be proven stands on so few labels that one wrong one among them
would end the sequence. So sequences start at several depths, each at its part of delta (the paper's section on
multiple starts), and the loosest that any of them reaches is taken.

**What it rests on.** Labels are exchangeable with what is served later: same callers, same questions, same cache. And
the share of wrong above t passes ``max_error`` once, as t falls; with a share that goes up and down, a sequence along
drawn ranks keeps its level only nearly.
"""

from __future__ import annotations

from collections import deque

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.verification import binomial
from tandem.verification.base import LearnerOptions, Promise, Report

# Ranks of a sequence grow by a tenth; starts by a factor of four: each costs its part of delta.
_STEP = 1.1
_START_STEP = 4
_STARTS = 4
# Beyond 500 labels, a twentieth more of them is waited for: learning from all of them is no work for every 25th.
_RELEARN_PART = 20


class Learned(msgspec.Struct, frozen=True):
    """Serve what scores at or above ``threshold``: of ``served`` labels there, ``wrong`` were wrong."""

    threshold: float
    served: int
    wrong: int


def learn(scores: NDArray[np.float64], wrong: NDArray[np.bool_], promise: Promise) -> Learned | None:
    """The loosest threshold that keeps ``promise``, from labels ``scores`` [n] and ``wrong`` [n]; None for "serve
    nothing". Scores are finite, the higher the surer."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    wrong_up_to = np.concatenate([[0], np.cumsum(wrong[order])])
    # How many are strictly above the score at each rank: ties are served together or not at all.
    above = np.searchsorted(-falling, -falling, side="left")
    delta = promise.delta / _STARTS
    best: Learned | None = None
    start = binomial.least_n(promise.max_error, delta)
    for _ in range(_STARTS):
        found = _descend(start, above, wrong_up_to, promise.max_error, delta)
        if found > (best.served if best else 0):
            # The next number over the score that was ranked: "strictly above" and "at or above" are then one.
            threshold = float(np.nextafter(falling[found], np.inf))
            best = Learned(threshold, found, int(wrong_up_to[found]))
        start *= _START_STEP
    return best


def _descend(
    start: int, above: NDArray[np.intp], wrong_up_to: NDArray[np.int64], max_error: float, delta: float
) -> int:
    """How many labels are served at the end of the sequence that starts at ``start`` of them; 0 for none."""
    reached, rank = 0, start
    while rank < len(above):
        served = int(above[rank])
        # Under ``start`` only where scores are tied, say many at 1.0: too few to be tested, which is no verdict.
        if served >= start:
            if binomial.cdf(int(wrong_up_to[served]), served, max_error) > delta:
                break
            reached = served
        rank = max(rank + 1, int(rank * _STEP))
    return reached


class ThresholdLearner:
    """Keeps the latest labels and the threshold that they prove.

    Each time it learns, it starts from its labels alone. So at any one moment the threshold in force keeps the
    promise with the probability promised; over a long life, one that does not is in force for that part of the time.
    """

    def __init__(self, promise: Promise, options: LearnerOptions | None = None) -> None:
        self.promise = promise
        self._options = options or LearnerOptions()
        self._scores: deque[float] = deque(maxlen=self._options.window)
        self._wrong: deque[bool] = deque(maxlen=self._options.window)
        self._learned: Learned | None = None
        self._unlearned = 0

    def __len__(self) -> int:
        return len(self._scores)

    def observe(self, evidence: float, right: bool) -> None:
        """A label. To be a fair sample, whether it is asked for must not depend on its score.

        Raises ValueError for a score that is not finite.
        """
        if not np.isfinite(evidence):
            raise ValueError(f"a score must be finite, got {evidence}")
        self._scores.append(float(evidence))
        self._wrong.append(not right)
        self._unlearned += 1
        if is_due(self._unlearned, len(self), self._options):
            self.relearn()

    def relearn(self) -> None:
        """Learn from the labels as they are now."""
        self._unlearned = 0
        self._learned = learn(np.array(self._scores, np.float64), np.array(self._wrong, np.bool_), self.promise)

    def forget(self) -> None:
        """Drop all labels, and with them the threshold."""
        self._scores.clear()
        self._wrong.clear()
        self._learned = None
        self._unlearned = 0

    def threshold(self) -> float | None:
        """Serve what scores at or above it; None: serve nothing."""
        return None if self._learned is None else self._learned.threshold

    def serves(self, evidence: float) -> bool:
        """Whether an answer with this score keeps the promise."""
        return self._learned is not None and evidence >= self._learned.threshold

    def report(self) -> Report:
        """What was known when it last learned."""
        return describe(self.promise, len(self), self.threshold(), self._learned)


def is_due(unlearned: int, labels: int, options: LearnerOptions) -> bool:
    """Whether to learn anew: by the count of labels alone, so that what they say does not choose the moment."""
    return unlearned >= max(options.relearn_every, labels // _RELEARN_PART)


def describe(promise: Promise, labels: int, threshold: float | None, learned: Learned | None) -> Report:
    """A learner in words."""
    goal = f"at most {promise.max_error:.2%} wrong with {promise.confidence:.0%} confidence"
    if learned is None:
        least = binomial.least_n(promise.max_error, promise.delta / _STARTS) + 1
        if labels < least:
            words = f"serves nothing: {goal} takes {least} labels at the least, {labels} are there"
        else:
            words = f"serves nothing: no threshold is proven to keep {goal} by the {labels} labels that are there"
        return Report(labels, None, 0, 0, 1.0, words)
    bound = binomial.upper_bound(learned.wrong, learned.served, promise.confidence)
    words = (
        f"serves at {threshold:.4f} and above: {learned.wrong} of {learned.served} labels there were wrong, "
        f"so at most {bound:.2%} are, with {promise.confidence:.0%} confidence"
    )
    return Report(labels, threshold, learned.served, learned.wrong, bound, words)
