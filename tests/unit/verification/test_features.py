from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.verification import FeatureLearner, LearnerOptions, Promise, ThresholdLearner


def world(seed: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Signals [n, 3]: one that says something, one that says as much again, noise. Right with probability s(a + b)."""
    chance = np.random.default_rng(seed)
    signals = chance.normal(size=(n, 3))
    right = chance.random(n) < 1 / (1 + np.exp(-4 * (signals[:, 0] + signals[:, 1])))
    return signals, right


def taught(n: int, seed: int = 0, options: LearnerOptions | None = None) -> FeatureLearner:
    learner = FeatureLearner(Promise(0.1), options)
    for signals, right in zip(*world(seed, n), strict=True):
        learner.observe(signals.tolist(), bool(right))
    return learner


def test_several_signals_serve_more_than_the_first_alone_at_the_same_promise() -> None:
    learner, plain = taught(4_000), ThresholdLearner(Promise(0.1))
    for signals, right in zip(*world(0, 4_000), strict=True):
        plain.observe(float(signals[0]), bool(right))
    signals, right = world(1, 4_000)
    served = np.array([learner.serves(one.tolist()) for one in signals])
    served_plainly = np.array([plain.serves(float(one[0])) for one in signals])
    assert served.mean() > 1.5 * served_plainly.mean() > 0
    assert (~right[served]).mean() < 0.1


def test_while_labels_are_few_the_first_signal_decides_and_all_of_them_prove() -> None:
    learner, plain = FeatureLearner(Promise(0.1)), ThresholdLearner(Promise(0.1))
    for index in range(800):
        first = (index * 7919 % 800) / 800
        learner.observe((first, -first, 0.0), first > 0.5)
        plain.observe(first, first > 0.5)
    assert learner.threshold() == plain.threshold() is not None
    assert learner.report() == plain.report()
    assert learner.score((0.3, 9.0, 9.0)) == 0.3


def test_a_signal_that_never_varied_says_nothing() -> None:
    learner = FeatureLearner(Promise(0.1))
    for index in range(2_000):
        first = (index * 7919 % 2_000) / 2_000
        learner.observe((first, 1.0), first > 0.5)
    assert learner.serves((0.9, 1.0))
    assert learner.serves((0.9, 1e6))
    assert not learner.serves((0.1, -1e6))


@pytest.mark.parametrize("right", [True, False])
def test_labels_that_are_all_alike_teach_no_nonsense(right: bool) -> None:
    learner = FeatureLearner(Promise(0.1))
    chance = np.random.default_rng(0)
    for one in chance.normal(size=(2_000, 3)):
        learner.observe(one.tolist(), right)
    assert learner.serves((3.0, 0.0, 0.0)) is right
    threshold = learner.threshold()
    assert (threshold is not None) is right
    assert threshold is None or 0 <= threshold <= 1


def test_forgetting_serves_nothing() -> None:
    learner = taught(2_000)
    assert learner.serves((3.0, 3.0, 0.0))
    learner.forget()
    assert (len(learner), learner.threshold(), learner.serves((3.0, 3.0, 0.0))) == (0, None, False)
    assert "serves nothing" in learner.report().words


def test_the_window_moves_on() -> None:
    learner = taught(5_000, options=LearnerOptions(window=1_500))
    assert len(learner) == 1_500
    assert learner.serves((3.0, 3.0, 0.0))


def test_signals_are_always_as_many() -> None:
    learner = FeatureLearner(Promise(0.1))
    learner.relearn()
    learner.observe((0.5, 0.5), True)
    with pytest.raises(ValueError, match="2 signals so far, now there are 3"):
        learner.observe((0.5, 0.5, 0.5), True)
    assert len(learner) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_signals_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        FeatureLearner(Promise(0.1)).observe((0.5, bad), True)
