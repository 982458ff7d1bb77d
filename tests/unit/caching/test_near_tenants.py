from __future__ import annotations

import numpy as np
import pytest

from tandem.caching.near_tenants import TenantGuards
from tandem.verification import Guard, GuardOptions, LearnerOptions, Promise
from tandem.verification.binomial import upper_bound

EAGER = GuardOptions(audit_share=0.2, learn_first=0, learner=LearnerOptions(window=2000, relearn_every=1))
PROMISE = Promise(max_error=0.1)


def teach(guard: Guard, score: float, right: bool, count: int = 200) -> None:
    # Scores differ, as equal ones are served together or not at all, and a sequence of thresholds needs several.
    for place in range(count):
        guard.observe(score + place * 1e-6, right)


def test_what_one_tenant_teaches_does_not_serve_another() -> None:
    guards = TenantGuards(PROMISE, EAGER, most=4)
    teach(guards.of("enemy"), 0.3, right=True)
    assert guards.of("enemy").serves(0.3001)
    assert guards.of("victim").threshold() is None
    teach(guards.of("victim"), 0.3, right=False)
    teach(guards.of("victim"), 0.9, right=True)
    assert not guards.of("victim").serves(0.3001)
    assert guards.of("victim").serves(0.95)
    assert guards.of("enemy").serves(0.3001), "nor the other way round"


def test_guards_are_bounded_and_the_longest_idle_goes() -> None:
    guards = TenantGuards(PROMISE, EAGER, most=2)
    for name in ("a", "b"):
        teach(guards.of(name), 0.5, right=True)
    guards.of("a")
    guards.of("c")
    assert len(guards) == 2
    assert guards.report("b") is None
    assert guards.of("a").threshold() is not None
    assert guards.of("b").threshold() is None, "it learns anew"


def test_statistics_are_sums_and_the_lowest_threshold() -> None:
    guards = TenantGuards(PROMISE, EAGER, most=4)
    assert guards.statistics()["threshold"] == -1
    assert guards.statistics()["audited_error_bound"] == 1
    for name, score in (("a", 0.5), ("b", 0.8)):
        teach(guards.of(name), score, right=True)
    guards.of("a").observe(0.6, right=False)
    found = guards.statistics()
    assert found["tenants"] == found["serving"] == 2
    assert found["labels"] == 401
    assert found["threshold"] == pytest.approx(guards.of("a").threshold())
    assert found["audited_wrong"] == 1
    assert found["audited_error"] == 1 / found["audited"]
    assert found["audited_error_bound"] == upper_bound(1, int(found["audited"]), PROMISE.confidence)
    assert guards.memory_bytes() > 401 * 8


def test_alarms_of_guards_that_are_gone_still_count() -> None:
    guards = TenantGuards(PROMISE, GuardOptions(learner=LearnerOptions(window=2000, relearn_every=200)), most=1)
    teach(guards.of("a"), 0.5, right=True, count=400)
    teach(guards.of("a"), 0.5, right=False, count=100)
    assert guards.statistics()["alarms"] == 1
    guards.of("b")
    assert guards.statistics()["alarms"] == 1


def test_tenants_toss_their_own_coins() -> None:
    guards = TenantGuards(PROMISE, EAGER, most=4)
    for name in ("a", "b"):
        teach(guards.of(name), 0.5, right=True)
    tosses = np.array([[guards.of(name).audit() for name in ("a", "b")] for _ in range(400)])
    assert 40 <= tosses[:, 0].sum() <= 120
    assert (tosses[:, 0] != tosses[:, 1]).any()


def test_the_state_is_in_words_and_names_no_tenant() -> None:
    guards = TenantGuards(PROMISE, EAGER, most=4)
    assert "nobody has asked" in guards.state()
    teach(guards.of("tenant one"), 0.5, right=True)
    assert "serves at" in guards.state()
    guards.of("tenant two")
    assert guards.state().startswith("serves 1 of 2 tenants")
    assert "tenant one" not in guards.state()
