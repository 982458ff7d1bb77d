from __future__ import annotations

import math
import random

import numpy as np

from tandem.scheduling.cost_model import CostModel
from tandem.types import Outcome


def outcome(tokens: int, seconds: float, *, n: int = 10, ok: bool = True) -> Outcome:
    squares = tokens * tokens // n
    return Outcome("cpu", n, tokens, tokens, squares, 100.0, 100.0 + seconds, ok)


def test_learns_what_a_token_costs() -> None:
    cost, rng = CostModel(), random.Random(1)
    for _ in range(300):
        tokens, n = rng.randrange(20, 2000), rng.randrange(1, 40)
        cost.observe(outcome(tokens, 0.002 + 2e-5 * tokens, n=n))
    assert math.isclose(cost.seconds(1000, 50_000, 20), 0.022, rel_tol=0.1)
    assert math.isclose(cost.token_s, (0.002 + 2e-5 * 512) / 512, rel_tol=0.15)


def test_follows_a_device_that_slows_down() -> None:
    cost = CostModel()
    for slow in (1, 10):
        for tokens in list(range(50, 1000, 10)) * 10:
            cost.observe(outcome(tokens, slow * 1e-4 * tokens))
        fast_or_slow = cost.token_s
        assert math.isclose(fast_or_slow, slow * 1e-4, rel_tol=0.3)


def test_a_failed_batch_teaches_nothing() -> None:
    cost, untouched = CostModel(), CostModel()
    cost.observe(outcome(100, 1e-9, ok=False))
    assert cost.token_s == untouched.token_s


def test_one_batch_already_counts() -> None:
    cost = CostModel()
    before = cost.token_s
    cost.observe(outcome(500, before * 500 * 10))
    assert cost.token_s > 2 * before


def test_predictions_stay_positive_and_finite_whatever_is_seen() -> None:
    cost, rng = CostModel(), random.Random(3)
    for _ in range(2000):
        seconds = rng.choice([0.0, 1e-9, 1e-3, 5.0, 4000.0])
        cost.observe(outcome(rng.choice([1, 3, 500, 16_384]), seconds, n=1))
        found = [cost.seconds(tokens, tokens * tokens, 1) for tokens in (1, 100, 10_000)]
        assert np.isfinite(found).all()
        assert min(found) > 0
        assert cost.token_s > 0
