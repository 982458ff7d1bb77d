"""The scheduler under any arrivals on any devices: nothing is lost, nothing is answered twice, time is not exceeded."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tandem.batching import POLICIES
from tandem.scheduling.cost_model import Cost
from tandem.scheduling.dispatch import DISPATCHERS
from tandem.simulation.bound import most_in_time
from tandem.simulation.driver import Options, simulate
from tandem.simulation.profile import HostProfile
from tandem.simulation.result import summarise
from tandem.types import Packing
from tests.unit.simulation.made import fleet, profile, requests

HOST = HostProfile(request_s=1e-4, answer_s=1e-4, batch_s=1e-4, hand_s=1e-4, client_s=1e-4)
SECONDS = st.floats(1e-6, 1e-2)


@st.composite
def devices(draw: st.DrawFn) -> Any:
    slots = draw(st.integers(1, 3))
    return profile(
        cost=Cost(draw(SECONDS), draw(st.floats(1e-7, 1e-4)), draw(st.floats(0, 1e-8)), draw(st.floats(0, 1e-4))),
        slots=slots,
        speeds=tuple(1.0 / share for share in np.linspace(1, draw(st.floats(1, 3)), slots).tolist()),
        in_turn=draw(st.booleans()),
        packing=draw(st.sampled_from(Packing)),
        max_batch_tokens=draw(st.integers(16, 2048)),
        cores=draw(st.integers(0, 4)),
        cold_s=draw(st.floats(0, 1e-3)),
        residuals=(0.5, 1.0, 1.5),
        host=draw(st.sampled_from([None, HOST])),
    )


@st.composite
def arrivals(draw: st.DrawFn) -> Any:
    lengths = draw(st.lists(st.integers(1, 512), min_size=1, max_size=60))
    gaps = draw(st.lists(st.floats(0, 0.05), min_size=len(lengths), max_size=len(lengths)))
    return requests(np.cumsum(gaps).tolist(), lengths)


@given(
    st.lists(devices(), min_size=1, max_size=3),
    arrivals(),
    st.sampled_from(DISPATCHERS.names()),
    st.sampled_from(POLICIES.names()),
    st.sampled_from([None, HOST]),
    st.sampled_from([0.0, 0.05]),
)
def test_any_fleet_answers_or_counts_every_request(
    profiles: Any, work: Any, dispatcher: str, policy: str, host: Any, timeout_s: float
) -> None:
    members = fleet(*profiles)
    options = Options(dispatcher=dispatcher, policy=policy, host=host, client=host is not None, timeout_s=timeout_s)
    run = simulate(members, work, options)
    answered = ~np.isnan(run.finished_s)
    assert answered.sum() + run.refused + run.expired == len(work)
    assert timeout_s or (answered.all() and sum(stats.texts for stats in run.stats) == len(work))
    assert (run.finished_s[answered] > work.times_s[answered]).all()
    assert all(stats.padded_tokens >= stats.tokens for stats in run.stats)
    summary = summarise(run, members, work, 0.1)
    assert all(0 <= use.utilisation <= 1 + 1e-9 for use in summary.devices)
    again = simulate(members, work, options)
    assert np.array_equal(run.finished_s, again.finished_s, equal_nan=True)


@given(st.lists(devices(), min_size=1, max_size=3), arrivals(), st.floats(0.001, 0.2))
def test_no_run_beats_the_bound(profiles: Any, work: Any, objective_s: float) -> None:
    members = fleet(*profiles)
    run = simulate(members, work, Options(scatter=False, timeout_s=objective_s))
    in_time = int((run.finished_s - work.times_s <= objective_s).sum())
    assert in_time <= most_in_time(members, work, objective_s) + 1e-6
