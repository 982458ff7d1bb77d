"""Exact tails and bounds of the binomial distribution, by log-gamma and summation: serving does without scipy."""

from __future__ import annotations

import math

# Beyond this share of the sum so far a term changes nothing that a double shows.
_NEGLIGIBLE = 1e-17
# Halvings of [0, 1]; the 60th is under the spacing of doubles near 1.
_HALVINGS = 60


def cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p). Relative error under 1e-9 up to n = 1e6.

    Raises ValueError for n < 0 or p outside [0, 1].
    """
    if n < 0 or not 0 <= p <= 1:
        raise ValueError(f"no binomial distribution has n = {n} and p = {p}")
    if k < 0:
        return 0.0
    if k >= n or p == 0:
        return 1.0
    if p == 1:
        return 0.0
    # Sum on the side of k where terms fall, away from the mode: few terms, no cancellation in a small tail.
    if k <= n * p:
        return min(_lower_tail(k, n, p), 1.0)
    return max(1.0 - _lower_tail(n - k - 1, n, 1 - p), 0.0)


def upper_bound(wrong: int, n: int, confidence: float) -> float:
    """The exact one-sided upper bound on a share of which ``wrong`` of ``n`` were seen: with probability >= confidence
    it is not under the true share (Clopper and Pearson, Biometrika 1934). 1.0 for n = 0.

    Raises ValueError for counts that make no sense or a confidence outside (0, 1).
    """
    _require_counts(wrong, n, confidence)
    if wrong == n:
        return 1.0
    low, high = wrong / n, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if cdf(wrong, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def lower_bound(wrong: int, n: int, confidence: float) -> float:
    """Likewise from below; 0.0 for n = 0."""
    return 1.0 - upper_bound(n - wrong, n, confidence)


def least_n(max_error: float, delta: float) -> int:
    """The least n for which not one wrong among n shows a share <= ``max_error``: (1 - max_error)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-max_error) - 1e-12)


def _lower_tail(k: int, n: int, p: float) -> float:
    """P(X <= k) for 0 <= k <= n p, downwards from k: each term is the one before times i q / ((n - i + 1) p) <= 1."""
    log_term = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    )
    odds = (1 - p) / p
    total = term = 1.0
    for i in range(k, 0, -1):
        term *= i * odds / (n - i + 1)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return math.exp(log_term) * total


def _require_counts(wrong: int, n: int, confidence: float) -> None:
    if not 0 <= wrong <= n:
        raise ValueError(f"{wrong} of {n} is no count")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
