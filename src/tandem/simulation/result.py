"""What a run comes to, in the figures that people compare."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.simulation.base import Workload
from tandem.simulation.driver import Run
from tandem.simulation.fleet import Member


class DeviceUse(msgspec.Struct, frozen=True):
    """Shares from 0 to 1: ``utilisation`` of the slots' time, ``padding`` of the tokens that ran, ``texts`` of all."""

    id: str
    utilisation: float
    padding: float
    texts: float
    batches: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """``throughput`` and ``goodput``: requests a second, all that were answered and those within the objective, over
    the time from the first arrival to the end of the last work; ``in_time``: the latter as a share of all requests.
    Seconds from arrival to answer, of what was answered: mean and quantiles; ``wait_s``: the mean, from the queue to
    the start of the batch. ``host``: the share of time that the server's own thread is busy."""

    requests: int
    seconds: float
    offered: float
    throughput: float
    goodput: float
    in_time: float
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    wait_s: float
    refused: int
    expired: int
    host: float
    devices: tuple[DeviceUse, ...]


def summarise(run: Run, fleet: Sequence[Member], workload: Workload, objective_s: float) -> Summary:
    """The figures of one run. Quantiles are 0 where nothing was answered."""
    latencies = latencies_s(run, workload)
    seconds = max(run.ended_s, float(workload.times_s[-1])) - float(workload.times_s[0]) or 1e-9
    good = int((latencies <= objective_s).sum())
    p50, p95, p99 = np.quantile(latencies, (0.5, 0.95, 0.99)).tolist() if len(latencies) else (0.0, 0.0, 0.0)
    waits = run.waits_s[~np.isnan(run.waits_s)]
    return Summary(
        requests=len(workload),
        seconds=seconds,
        offered=workload.rate,
        throughput=len(latencies) / seconds,
        goodput=good / seconds,
        in_time=good / len(workload),
        mean_s=float(latencies.mean()) if len(latencies) else 0.0,
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        wait_s=float(waits.mean()) if len(waits) else 0.0,
        refused=run.refused,
        expired=run.expired,
        host=run.host_busy_s / seconds,
        devices=tuple(_use(run, index, member, seconds) for index, member in enumerate(fleet)),
    )


def latencies_s(run: Run, workload: Workload) -> NDArray[np.float64]:
    """Seconds from arrival to answer of each request that was answered, in order of arrival."""
    found: NDArray[np.float64] = run.finished_s - workload.times_s
    return found[~np.isnan(found)]


def _use(run: Run, index: int, member: Member, seconds: float) -> DeviceUse:
    stats = run.stats[index]
    return DeviceUse(
        id=member.id,
        utilisation=stats.busy_s / (member.profile.slots * seconds),
        padding=1 - stats.tokens / stats.padded_tokens if stats.padded_tokens else 0.0,
        texts=stats.texts / max(1, sum(each.texts for each in run.stats)),
        batches=stats.batches,
    )
