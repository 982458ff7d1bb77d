from __future__ import annotations

import pytest
from scipy import stats

from tandem.verification import binomial

CASES = [(0, 1), (0, 59), (1, 10), (7, 344), (50, 100), (99, 100), (100, 100), (480, 10_000), (9_000, 10_000)]


@pytest.mark.parametrize("p", [1e-6, 0.01, 0.05, 0.5, 0.97])
@pytest.mark.parametrize(("k", "n"), CASES)
def test_the_tail_is_scipys(k: int, n: int, p: float) -> None:
    assert binomial.cdf(k, n, p) == pytest.approx(float(stats.binom.cdf(k, n, p)), rel=1e-9, abs=1e-300)


def test_a_tail_far_out_keeps_its_digits() -> None:
    assert binomial.cdf(100, 10_000, 0.05) == pytest.approx(float(stats.binom.cdf(100, 10_000, 0.05)), rel=1e-9)
    assert 0 < binomial.cdf(100, 10_000, 0.05) < 1e-90


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("k", "n"), CASES)
def test_the_bounds_are_those_of_clopper_and_pearson(k: int, n: int, confidence: float) -> None:
    upper = 1.0 if k == n else float(stats.beta.ppf(confidence, k + 1, n - k))
    lower = 0.0 if k == 0 else float(stats.beta.ppf(1 - confidence, k, n - k + 1))
    assert binomial.upper_bound(k, n, confidence) == pytest.approx(upper, rel=1e-8)
    assert binomial.lower_bound(k, n, confidence) == pytest.approx(lower, rel=1e-8)


def test_nothing_seen_bounds_nothing() -> None:
    assert (binomial.lower_bound(0, 0, 0.95), binomial.upper_bound(0, 0, 0.95)) == (0.0, 1.0)


@pytest.mark.parametrize(("max_error", "delta", "n"), [(0.05, 0.05, 59), (0.01, 0.05, 299), (0.5, 0.25, 2)])
def test_the_least_sample_without_a_wrong_one(max_error: float, delta: float, n: int) -> None:
    assert binomial.least_n(max_error, delta) == n
    assert binomial.cdf(0, n, max_error) <= delta < binomial.cdf(0, n - 1, max_error)


@pytest.mark.parametrize(("k", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, float("nan"))])
def test_counts_that_are_none_are_refused(k: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"count|confidence"):
        binomial.upper_bound(k, n, confidence)


@pytest.mark.parametrize(("n", "p"), [(-1, 0.5), (3, 1.5), (3, float("nan"))])
def test_a_distribution_that_is_none_is_refused(n: int, p: float) -> None:
    with pytest.raises(ValueError, match="no binomial"):
        binomial.cdf(0, n, p)
