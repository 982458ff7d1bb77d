from __future__ import annotations

import random

from tandem.batching.base import BatchLimits, Plan, QueueView
from tandem.batching.memory_aware import MemoryAwarePolicy

LIMITS = BatchLimits(max_tokens=1024, max_width=256)


def plan(lengths: list[int], anchor: int, free_slots: int = 1, limits: BatchLimits = LIMITS) -> Plan:
    return MemoryAwarePolicy(limits).plan(QueueView(lengths, anchor, sum(lengths), free_slots), 0.0)


def test_one_text_runs_alone_at_once() -> None:
    assert plan([9], 0) == Plan(0, 1, 9)


def test_texts_of_one_length_share_a_batch() -> None:
    assert plan([12] * 20, 7) == Plan(0, 20, 12)


def test_a_long_text_does_not_join_a_short_one() -> None:
    assert plan([8, 200], 0) == Plan(0, 1, 8)
    assert plan([8, 200], 1).start == 1


def test_a_text_longer_than_the_budget_is_served_alone() -> None:
    limits = BatchLimits(max_tokens=100, max_width=512)
    assert plan([5, 400, 401], 1, limits=limits) == Plan(1, 2, 400)


def test_devices_that_stand_idle_share_what_waits() -> None:
    assert plan([32] * 16, 0, free_slots=2).n == 8
    assert plan([32] * 16, 0, free_slots=1).n == 16


def test_little_work_is_not_split() -> None:
    assert plan([8] * 4, 0, free_slots=4).n == 4


def test_a_sorted_window_hardly_pads() -> None:
    """Lengths as questions and paragraphs mix; the issue's bound on the real mix is 5 %."""
    rng = random.Random(7)
    waiting = sorted(min(256, max(4, int(rng.lognormvariate(3.4, 0.9)))) for _ in range(3000))
    real = padded = 0
    while waiting:
        cut = plan(waiting, rng.randrange(len(waiting)))
        real += sum(waiting[cut.start : cut.stop])
        padded += cut.n * cut.width
        del waiting[cut.start : cut.stop]
    assert 1 - real / padded < 0.05
