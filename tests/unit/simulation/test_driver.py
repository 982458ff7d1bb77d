from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tandem.batching import POLICIES
from tandem.errors import ConfigError
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.dispatch import DISPATCHERS
from tandem.simulation import ARRIVALS, Draw, Workload
from tandem.simulation.driver import Options, Run, simulate
from tandem.simulation.fleet import capacity
from tandem.simulation.profile import HostProfile
from tandem.simulation.result import summarise
from tests.unit.simulation.made import FAST, SLOW, fleet, profile, requests

HOST = HostProfile(request_s=1e-4, answer_s=5e-5, batch_s=2e-4, hand_s=1e-4, client_s=5e-5)


def poisson(rate: float, n: int = 500, lengths: str = "mix", seed: int = 0) -> Workload:
    return ARRIVALS.get("poisson")(Draw(requests=n, lengths=lengths, seed=seed)).at(rate)


def same(one: Run, other: Run) -> bool:
    return np.array_equal(one.finished_s, other.finished_s, equal_nan=True) and one.stats == other.stats


def test_one_text_takes_what_the_profile_says() -> None:
    run = simulate(fleet(SLOW), requests([1.0], [20]), Options())
    assert run.finished_s[0] == pytest.approx(1.0 + 1e-3 + 20 * 5e-5)
    assert run.waits_s[0] == 0.0


def test_the_server_adds_what_it_costs() -> None:
    bare = simulate(fleet(SLOW), requests([1.0], [20]), Options())
    around = simulate(fleet(SLOW), requests([1.0], [20]), Options(host=HOST))
    assert around.finished_s[0] - bare.finished_s[0] == pytest.approx(1e-4 + 5e-5 + 2e-4)
    callers = simulate(fleet(SLOW), requests([1.0], [20]), Options(host=HOST, client=True))
    assert callers.finished_s[0] - around.finished_s[0] == pytest.approx(5e-5)


def test_a_server_on_the_devices_own_cores_slows_batches_down() -> None:
    shared = profile(cores=1, host=HOST)
    apart = profile(host=HOST)
    work = requests([0.0, 0.0005, 0.001, 0.0015], [200, 10, 10, 10])
    slowed, free = (simulate(fleet(one), work, Options(host=HOST)) for one in (shared, apart))
    assert slowed.finished_s[0] > free.finished_s[0] + 2e-4


def test_a_text_that_comes_while_the_server_writes_is_not_forgotten() -> None:
    slow_writer = HostProfile(request_s=1e-4, answer_s=1e-2)
    run = simulate(fleet(SLOW), requests([0.0, 0.003], [20, 20]), Options(host=slow_writer))
    assert not np.isnan(run.finished_s).any()
    assert run.finished_s[1] == pytest.approx(0.0001 + 0.002 + 0.01 + 0.0001 + 0.002 + 0.01)


def test_callers_send_the_next_request_when_the_last_is_answered() -> None:
    run = simulate(fleet(SLOW), requests([0.0] * 6, [20] * 6), Options(callers=1))
    assert run.finished_s.tolist() == pytest.approx([0.002 * turn for turn in range(1, 7)])


def test_a_server_on_the_same_cores_drags_batches() -> None:
    dragging = HostProfile(request_s=0.0, answer_s=0.0, drag=1.5)
    for cores, wanted_s in ((0, 2e-3), (4, 3e-3)):
        run = simulate(fleet(profile(cores=cores)), requests([0.0], [20]), Options(host=dragging))
        assert run.finished_s[0] == pytest.approx(wanted_s)


def test_slots_side_by_side_have_the_speed_that_was_measured() -> None:
    two = profile(slots=2, speeds=(1.0, 0.5))
    run = simulate(fleet(two), requests([0.0, 0.0], [500, 500]), Options(policy="fixed", latency_objective_s=0.0))
    alone_s = 1e-3 + 500 * 5e-5
    assert run.finished_s.max() == pytest.approx(2 * alone_s, rel=0.01)


def test_slots_in_turn_run_one_after_the_other() -> None:
    two = profile(slots=2, in_turn=True)
    run = simulate(fleet(two), requests([0.0, 0.001], [500, 500]), Options())
    alone_s = 1e-3 + 500 * 5e-5
    assert run.finished_s.tolist() == pytest.approx([alone_s, 2 * alone_s])


def test_another_shape_than_the_last_costs_more() -> None:
    shapes = profile(cold_s=0.5e-3)
    run = simulate(fleet(shapes), requests([1.0, 1.003, 1.0055], [20, 20, 30]), Options())
    taken = (run.finished_s - [1.0, 1.003, 1.0055]).tolist()
    assert taken == pytest.approx([2.5e-3, 2e-3, 3e-3])


def test_a_slot_that_had_nothing_to_do_is_cold() -> None:
    cold = profile(cold_s=0.5e-3)
    run = simulate(fleet(cold), requests([1.0, 1.001], [20, 20]), Options())
    taken = (run.finished_s - [1.0, 1.001]).tolist()
    assert taken == pytest.approx([2.5e-3, 1.5e-3 + 2e-3])


@pytest.mark.parametrize("dispatcher", DISPATCHERS.names())
@pytest.mark.parametrize("policy", POLICIES.names())
def test_every_request_is_answered_once_by_every_way(dispatcher: str, policy: str) -> None:
    members = fleet(FAST, SLOW)
    work = poisson(0.6 * capacity(members, poisson(1.0).lengths))
    run = simulate(members, work, Options(dispatcher=dispatcher, policy=policy))
    assert not np.isnan(run.finished_s).any()
    assert (run.finished_s > work.times_s).all()
    assert sum(stats.texts for stats in run.stats) == len(work)
    assert sum(stats.tokens for stats in run.stats) == work.lengths.sum()
    summary = summarise(run, members, work, 0.1)
    assert all(0 <= use.utilisation <= 1 + 1e-9 for use in summary.devices)
    assert all(0 <= use.padding < 1 for use in summary.devices)


def test_what_is_not_answered_is_counted() -> None:
    work = poisson(3 * capacity(fleet(SLOW), poisson(1.0).lengths))
    late = simulate(fleet(SLOW), work, Options(timeout_s=0.2))
    assert late.expired > 0
    assert late.expired + (~np.isnan(late.finished_s)).sum() == len(work)
    assert np.nanmax(late.finished_s - work.times_s) <= 0.2
    crowded = simulate(fleet(SLOW), work, Options(max_queue_s=0.5))
    assert crowded.refused > 0
    assert crowded.refused + (~np.isnan(crowded.finished_s)).sum() == len(work)


def test_the_same_seed_gives_the_same_run() -> None:
    wide = msgspec.structs.replace(SLOW, residuals=(0.5, 1.0, 1.5))
    members, work = fleet(FAST, wide), poisson(300.0)
    run = simulate(members, work, Options(seed=1))
    assert same(run, simulate(members, work, Options(seed=1)))
    assert not same(run, simulate(members, work, Options(seed=2)))
    assert same(
        simulate(members, work, Options(seed=1, scatter=False)), simulate(members, work, Options(seed=2, scatter=False))
    )


def test_one_at_a_time_waits_as_the_formula_says() -> None:
    """M/D/1: the mean wait is ``load / (2 (1 - load))`` services (Pollaczek and Khinchine)."""
    single = profile(cost=Cost(0.0, 1e-4), max_batch_tokens=10, max_width=10)
    load, service_s = 0.6, 1e-3
    work = poisson(load / service_s, n=40_000, lengths="10")
    run = simulate(fleet(single), work, Options(latency_objective_s=0.0))
    wanted_s = service_s * load / (2 * (1 - load))
    assert run.waits_s.mean() == pytest.approx(wanted_s, rel=0.05)


def test_a_slower_device_beside_a_fast_one_makes_the_tail_no_worse() -> None:
    alone, both = fleet(FAST), fleet(FAST, SLOW)
    for load in (0.3, 0.6, 0.9):
        work = poisson(load * capacity(alone, poisson(1.0).lengths), n=4000)
        tails = [summarise(simulate(each, work, Options()), each, work, 0.1).p99_s for each in (alone, both)]
        assert tails[1] <= 1.01 * tails[0]


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="timeout_s must be 0 or more"):
        Options(timeout_s=-1.0)
    with pytest.raises(ConfigError, match="profile of the host"):
        Options(client=True)
    with pytest.raises(ConfigError, match="unknown dispatcher 'best'"):
        simulate(fleet(SLOW), requests([0.0], [5]), Options(dispatcher="best"))
