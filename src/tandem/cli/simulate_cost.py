"""``tandem simulate --cost``: what the scheduler's core costs a request, measured as it schedules simulated devices."""

from __future__ import annotations

import time

from tandem.simulation import ARRIVALS
from tandem.simulation.driver import Options
from tandem.simulation.fleet import capacity, parse_fleet
from tandem.simulation.stopwatch import core_cost
from tandem.simulation.study import Plan

ASKED_S = 20e-6
LOADS = (0.5, 0.9, 1.2)


def run_cost(plan: Plan) -> int:
    """Print a row for each fleet, dispatcher and load; CPU time of this process, so others do not count. 0 always: a
    figure that is not reached is no failure."""
    workload = ARRIVALS.get(plan.arrivals)(plan.draw)
    print("# tandem simulate --cost: CPU time a request, in microseconds")
    print(f"requests  {workload.source}, {len(workload):,} a run; asked for: at most {1e6 * ASKED_S:g} in the core")
    print(f"{'devices':<28}{'dispatcher':<18}{'load':>6}{'core':>8}{'all':>8}{'texts a batch':>16}")
    for text in plan.devices:
        fleet = parse_fleet(text, plan.model)
        rate = capacity(fleet, workload.lengths)
        for dispatcher in plan.dispatchers:
            for load in LOADS:
                options = Options(dispatcher=dispatcher, policy=plan.policies[0], seed=plan.draw.seed)
                cost = core_cost(fleet, workload.at(load * rate), options, time.process_time)
                core, whole = 1e6 * cost.core_s, 1e6 * cost.whole_s
                met = "" if cost.core_s <= ASKED_S else "   over"
                print(f"{text:<28}{dispatcher:<18}{load:6.2f}{core:8.1f}{whole:8.1f}{cost.batch_texts:16.1f}{met}")
    return 0
