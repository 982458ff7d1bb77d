from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from tandem.scheduling.cost_model import Cost
from tandem.simulation import ARRIVALS, Draw
from tandem.simulation.bound import most_in_time
from tandem.simulation.driver import Options, simulate
from tandem.simulation.fleet import capacity
from tandem.simulation.profile import HostProfile
from tests.unit.simulation.made import FAST, SLOW, fleet, profile, requests


def best_by_trying(times_s: list[float], work_s: list[float], window_s: float) -> int:
    """The most jobs in time on one machine, one at a time, by trying all orders."""
    best = 0
    for order in permutations(range(len(times_s))):
        free_s, done = 0.0, 0
        for index in order:
            end_s = max(free_s, times_s[index]) + work_s[index]
            if end_s <= times_s[index] + window_s + 1e-12:
                free_s, done = end_s, done + 1
        best = max(best, done)
    return best


def test_it_is_never_under_the_best_order_and_close_to_it() -> None:
    single = profile(cost=Cost(0.0, 1e-3), max_batch_tokens=512)
    rng = np.random.default_rng(0)
    for _ in range(20):
        times_s = np.sort(rng.random(6) * 0.1).tolist()
        lengths = rng.integers(5, 40, 6).tolist()
        best = best_by_trying(times_s, [length * 1e-3 for length in lengths], 0.05)
        bound = most_in_time(fleet(single), requests(times_s, lengths), 0.05)
        assert best <= bound + 1e-9 <= best + 1.5


def test_all_are_in_time_where_there_is_room() -> None:
    assert most_in_time(fleet(SLOW), requests([0.0, 1.0], [10, 10]), 0.1) == pytest.approx(2)


def test_a_text_that_takes_too_long_alone_is_never_in_time() -> None:
    assert most_in_time(fleet(SLOW), requests([0.0], [500]), 0.01) == 0
    assert most_in_time(fleet(SLOW, FAST), requests([0.0], [500]), 0.01) == pytest.approx(1)


@pytest.mark.parametrize("load", [0.7, 1.2, 3.0])
@pytest.mark.parametrize("timeout_s", [0.0, 0.1])
def test_no_run_is_better(load: float, timeout_s: float) -> None:
    members = fleet(FAST, SLOW)
    work = ARRIVALS.get("bursty")(Draw(requests=3000, lengths="mix"))
    work = work.at(load * capacity(members, work.lengths))
    run = simulate(members, work, Options(timeout_s=timeout_s, max_queue_s=0.0))
    in_time = int((run.finished_s - work.times_s <= 0.1).sum())
    assert in_time <= most_in_time(members, work, 0.1) + 1e-6


def test_the_server_bounds_too() -> None:
    busy = HostProfile(request_s=0.01, answer_s=0.0)
    work = requests([0.0] * 50, [10] * 50)
    assert most_in_time(fleet(FAST), work, 0.1) == pytest.approx(50)
    assert most_in_time(fleet(FAST), work, 0.1, busy) == pytest.approx(10)
    assert most_in_time(fleet(FAST), work, 0.005, busy) == 0
