"""Several ways of running the same requests, side by side: fleets, dispatchers, policies, loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.simulation import ARRIVALS
from tandem.simulation.base import Draw, Workload
from tandem.simulation.bound import most_in_time
from tandem.simulation.driver import Options, simulate
from tandem.simulation.fleet import Member, capacity, host_of, parse_fleet
from tandem.simulation.result import Summary, latencies_s, summarise


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared: every fleet of ``devices`` by every dispatcher by every policy, at every load. ``loads`` are
    shares of the first fleet's capacity; ``rates``, requests a second; with neither, a trace runs as it was recorded.
    ``bound``: compare the goodput with that of a schedule that knows what comes."""

    devices: tuple[str, ...]
    model: str
    dispatchers: tuple[str, ...]
    policies: tuple[str, ...]
    arrivals: str
    draw: Draw
    loads: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    objective_s: float = 0.1
    host: bool = True
    bound: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``load``: the offered rate as a share of the first fleet's capacity. ``of_bound``: its requests in time
    over the most that any schedule could answer in time; None where that was not asked."""

    devices: str
    dispatcher: str
    policy: str
    load: float
    summary: Summary
    of_bound: float | None
    latencies_s: NDArray[np.float64]

    @property
    def name(self) -> str:
        return f"{self.devices} {self.dispatcher} {self.policy}"


class Study(msgspec.Struct, frozen=True):
    """The rows come as they are asked for; ``capacity``: requests a second of the first fleet, or of the
    server where that is less; ``source``: of the requests, in words; ``labels``: each profile and where it is from."""

    plan: Plan
    options: Options
    capacity: float
    source: str
    labels: tuple[tuple[str, str], ...]
    _fleets: tuple[tuple[Member, ...], ...]
    _workload: Workload

    def rows(self) -> Iterator[Row]:
        for workload in self._workloads():
            for fleet, text in zip(self._fleets, self.plan.devices, strict=True):
                most = self._most(fleet, workload)
                # Of a single device there is nothing to choose.
                dispatchers = self.plan.dispatchers if len(fleet) > 1 else self.plan.dispatchers[:1]
                for dispatcher, policy in product(dispatchers, self.plan.policies):
                    yield self._row(fleet, text, workload, (dispatcher, policy), most)

    def _row(
        self, fleet: Sequence[Member], text: str, workload: Workload, ways: tuple[str, str], most: float | None
    ) -> Row:
        dispatcher, policy = ways
        host = host_of(fleet) if self.plan.host else None
        options = msgspec.structs.replace(self.options, dispatcher=dispatcher, policy=policy, host=host)
        run = simulate(fleet, workload, options)
        summary = summarise(run, fleet, workload, self.plan.objective_s)
        return Row(
            devices=text,
            dispatcher=dispatcher,
            policy=policy,
            load=workload.rate / self.capacity,
            summary=summary,
            of_bound=None if most is None else summary.in_time * len(workload) / max(most, 1e-9),
            latencies_s=latencies_s(run, workload),
        )

    def _workloads(self) -> Iterator[Workload]:
        if self.plan.loads or self.plan.rates:
            for rate in (*(load * self.capacity for load in self.plan.loads), *self.plan.rates):
                yield self._workload.at(rate)
        else:
            yield self._workload

    def _most(self, fleet: Sequence[Member], workload: Workload) -> float | None:
        if not self.plan.bound:
            return None
        host = host_of(fleet) if self.plan.host else None
        return most_in_time(fleet, workload, self.plan.objective_s, host)


def prepare(plan: Plan, options: Options) -> Study:
    """Read the profiles and draw the requests. Raises ConfigError for anything that is not there or out of range."""
    fleets = tuple(tuple(parse_fleet(text, plan.model)) for text in plan.devices)
    if not fleets:
        raise ConfigError("a simulation needs devices")
    if any(not load > 0 for load in (*plan.loads, *plan.rates)):
        raise ConfigError("a load and a rate must be over 0")
    workload = ARRIVALS.get(plan.arrivals)(plan.draw)
    longest = min(member.profile.max_width for fleet in fleets for member in fleet)
    workload = workload.clipped(longest)
    profiles = {member.profile.name: member.profile for fleet in fleets for member in fleet}
    labels = tuple(
        (name, f"{profile.model} on {profile.device}. {profile.source}") for name, profile in profiles.items()
    )
    most = capacity(fleets[0], workload.lengths)
    if plan.host and (host := host_of(fleets[0])) is not None:
        most = min(most, 1 / (host.request_s + host.answer_s + host.token_s * float(workload.lengths.mean())))
    return Study(plan, options, most, workload.source, labels, fleets, workload)
