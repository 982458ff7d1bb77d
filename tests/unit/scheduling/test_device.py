from __future__ import annotations

import asyncio

import pytest

from tandem.batching import BatchLimits
from tandem.batching.memory_aware import MemoryAwarePolicy
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.device import Device, DeviceOptions
from tandem.types import Outcome, Output, Priority

LIMITS = BatchLimits(max_tokens=1024, max_width=512)


COST = Cost(0.01, 1e-4)


def device(cost: Cost = COST, *, slots: int = 1, objective_s: float = 0.0) -> Device:
    options = DeviceOptions(slots=slots, limits=LIMITS, prior=cost, latency_objective_s=objective_s)
    return Device(MemoryAwarePolicy(LIMITS), options)


def batch(length: int) -> Batch:
    loop = asyncio.new_event_loop()
    group = Group(1, loop.create_future(), Priority.NORMAL, Output.POOLED)
    loop.close()
    return Batch([Item(group, 0, [7] * length, 0)], length, Output.POOLED)


def test_knows_when_a_slot_is_free() -> None:
    one, first, second = device(slots=2), batch(100), batch(400)
    assert (one.free_slots, one.wait_s(0.0)) == (2, 0.0)
    one.begin(first, 0.0)
    one.begin(second, 0.0)
    assert one.free_slots == 0
    assert one.running_tokens == 500
    assert one.wait_s(0.005) == pytest.approx(0.015)
    assert one.outstanding_s(0.005) == pytest.approx((0.015 + 0.045) / 2)
    one.end(first, Outcome("cpu", 1, 100, 100, 10_000, 0.0, 0.02))
    assert (one.free_slots, one.wait_s(0.03)) == (1, 0.0)


def test_what_is_overdue_is_expected_to_take_longer_the_longer_it_is_overdue() -> None:
    one, late = device(), batch(100)
    one.begin(late, 0.0)
    waits = [one.wait_s(now) for now in (0.021, 0.05, 0.5, 5.0)]
    assert waits == sorted(waits)
    assert waits[-1] > 4


def test_the_latency_objective_bounds_a_batch_but_not_to_uselessness() -> None:
    assert device().most_tokens == 1024
    assert device(Cost(0.001, 1e-4), objective_s=0.1).most_tokens == pytest.approx(790, abs=2)
    # A large model on a slow device: 80 ms are 26 tokens, and it would spend its time beginning.
    heavy = device(Cost(0.02, 2.3e-3), objective_s=0.1)
    assert heavy.most_tokens == pytest.approx(10 * 0.02 / 2.3e-3, abs=2)
