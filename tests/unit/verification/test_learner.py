from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.verification import LearnerOptions, Promise, ThresholdLearner, learn


def labels(seed: int, n: int, steepness: float = 0.5) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores uniform in [0, 1]; wrong with probability (1 - score) * steepness."""
    chance = np.random.default_rng(seed)
    scores = chance.random(n)
    return scores, chance.random(n) < (1 - scores) * steepness


def test_a_clear_case_is_served_down_to_where_errors_begin() -> None:
    scores = np.linspace(1, 0, 1001)
    found = learn(scores, scores < 0.5, Promise(0.05))
    assert found is not None
    # All over 0.5 are right, so a few below it still fit into five in a hundred.
    assert 0.45 < found.threshold < 0.51
    assert (found.served, found.wrong) == (int((scores >= found.threshold).sum()), max(0, found.served - 501))


def test_more_labels_serve_more() -> None:
    served = []
    for n in (3_000, 12_000, 48_000):
        found = learn(*labels(5, n), Promise(0.05))
        assert found is not None
        served.append(found.served / n)
    # The share over 0.8 is wrong in 5 of 100, so 0.2 is the most that could ever be served.
    assert served[0] < served[1] < served[2] < 0.2


def test_too_few_labels_serve_nothing() -> None:
    assert learn(np.ones(50), np.zeros(50, np.bool_), Promise(0.05)) is None
    assert learn(np.zeros(0), np.zeros(0, np.bool_), Promise(0.05)) is None


def test_where_errors_are_everywhere_nothing_is_served() -> None:
    chance = np.random.default_rng(2)
    assert learn(chance.random(5_000), chance.random(5_000) < 0.2, Promise(0.05)) is None


def test_one_wrong_label_at_the_top_does_not_end_it() -> None:
    scores = np.linspace(1, 0, 2_000)
    wrong = scores < 0.5
    wrong[0] = True
    found = learn(scores, wrong, Promise(0.05))
    assert found is not None
    assert found.threshold < 0.52


def test_ties_are_served_together() -> None:
    # Half are exact repeats and right; the rest are all wrong.
    scores = np.concatenate([np.ones(600), np.linspace(0.9, 0.1, 600)])
    found = learn(scores, scores < 1, Promise(0.05))
    assert found is not None
    assert found.served >= 600
    # The same number of ties, of which too many are wrong.
    wrong = scores < 1
    wrong[:60] = True
    assert learn(scores, wrong, Promise(0.05)) is None


def test_the_order_of_labels_does_not_matter() -> None:
    scores, wrong = labels(3, 3_000)
    order = np.random.default_rng(4).permutation(3_000)
    assert learn(scores, wrong, Promise(0.1)) == learn(scores[order], wrong[order], Promise(0.1))


def test_a_learner_says_what_it_lacks_and_then_what_it_serves() -> None:
    learner = ThresholdLearner(Promise(0.05))
    assert learner.threshold() is None
    assert "takes 87 labels at the least, 0 are there" in learner.report().words
    for score, wrong in zip(*labels(5, 3_000), strict=True):
        learner.observe(float(score), not wrong)
    report = learner.report()
    assert report.threshold == learner.threshold() is not None
    assert report.bound <= 0.05
    assert report.words.startswith("serves at 0.")
    learner.forget()
    assert (len(learner), learner.threshold()) == (0, None)


def test_a_learner_of_errors_says_that_no_threshold_is_proven() -> None:
    learner = ThresholdLearner(Promise(0.05))
    for index in range(200):
        learner.observe(index / 200, right=False)
    assert "no threshold is proven" in learner.report().words


def test_old_labels_leave_the_window() -> None:
    learner = ThresholdLearner(Promise(0.05), LearnerOptions(window=500))
    for right in (True, False):
        for index in range(500):
            learner.observe(index / 500, right)
    assert len(learner) == 500
    assert learner.threshold() is None


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        ThresholdLearner(Promise(0.05)).observe(score, True)


@pytest.mark.parametrize(("max_error", "confidence"), [(0, 0.9), (1, 0.9), (0.1, 1), (float("nan"), 0.9)])
def test_a_promise_that_is_none_is_refused(max_error: float, confidence: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Promise(max_error, confidence)


@pytest.mark.parametrize(("window", "every"), [(10, 11), (10, 0)])
def test_options_that_make_no_sense_are_refused(window: int, every: int) -> None:
    with pytest.raises(ConfigError, match="relearn_every"):
        LearnerOptions(window=window, relearn_every=every)
