"""Row E3: the same requests on 1, 2 and 4 devices of a kind."""

from __future__ import annotations

import msgspec
import numpy as np

from tandem.simulation import ARRIVALS
from tandem.simulation.base import Draw, Workload
from tandem.simulation.driver import Options, simulate
from tandem.simulation.fleet import capacity, host_of, parse_fleet
from tandem.simulation.result import summarise

COUNTS = (1, 2, 4)
LOAD = 0.7


class ScaledRun(msgspec.Struct, frozen=True):
    """``throughput`` and ``utilisation`` with all requests there from the start; quantiles with Poisson arrivals at
    70 % of the devices' capacity. ``with_server``: the throughput through one server process of the profile's
    cost, 0 where the profile has none. ``label``: what the profile is."""

    count: int
    throughput: float
    utilisation: float
    p50_s: float
    p99_s: float
    with_server: float
    label: str


def scale(profile: str, model: str, lengths: str, requests: int, seed: int) -> list[ScaledRun]:
    """Raises ConfigError for a profile that is not there."""
    return [_scale(profile, model, lengths, requests, seed, count) for count in COUNTS]


def _scale(profile: str, model: str, lengths: str, requests: int, seed: int, count: int) -> ScaledRun:
    fleet = parse_fleet(profile if count == 1 else f"{profile}*{count}", model)
    arriving = ARRIVALS.get("poisson")(Draw(requests=requests, lengths=lengths, seed=seed))
    waiting = Workload(np.zeros(len(arriving)), arriving.lengths, arriving.source)
    options = Options(seed=seed, max_queue_s=0.0)
    full = summarise(simulate(fleet, waiting, options), fleet, waiting, 0.1)
    eased = arriving.at(LOAD * capacity(fleet, arriving.lengths))
    calm = summarise(simulate(fleet, eased, options), fleet, eased, 0.1)
    host, served = host_of(fleet), 0.0
    if host is not None:
        through = msgspec.structs.replace(options, host=host)
        served = summarise(simulate(fleet, waiting, through), fleet, waiting, 0.1).throughput
    what = fleet[0].profile
    return ScaledRun(
        count=count,
        throughput=full.throughput,
        utilisation=float(np.mean([use.utilisation for use in full.devices])),
        p50_s=calm.p50_s,
        p99_s=calm.p99_s,
        with_server=served,
        label=f"{what.name}: {what.model} on {what.device}. {what.source}",
    )
