"""The scheduler's own cost: real time spent in its core while virtual time passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from tandem.scheduling.base import Batch, Item
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.device import Device
from tandem.simulation.base import Workload
from tandem.simulation.driver import Driver, Options
from tandem.simulation.fleet import Member
from tandem.types import Outcome


class CoreCost(msgspec.Struct, frozen=True):
    """Real seconds a request: in the core, dispatcher and policy included, and in all of the simulation."""

    core_s: float
    whole_s: float
    batch_texts: float


class TimedCore(SchedulerCore):
    """A core that adds up what its calls take by ``reading``, each read twice: 0.1 us too much a call."""

    reading: Callable[[], float] = staticmethod(lambda: 0.0)
    spent_s = 0.0

    def add(self, items: Iterable[Item], now: float) -> None:
        before_s = self.reading()
        super().add(items, now)
        self.spent_s += self.reading() - before_s

    def next(self, device: Device, now: float, *, must: bool = False) -> Batch | None:
        before_s = self.reading()
        batch = super().next(device, now, must=must)
        self.spent_s += self.reading() - before_s
        return batch

    def finish(self, device: Device, batch: Batch, outcome: Outcome) -> None:
        before_s = self.reading()
        super().finish(device, batch, outcome)
        self.spent_s += self.reading() - before_s


def core_cost(fleet: Sequence[Member], workload: Workload, options: Options, reading: Callable[[], float]) -> CoreCost:
    """Run ``workload`` and read a real clock meanwhile."""
    driver = Driver(fleet, workload, options, TimedCore)
    core = driver.core
    assert isinstance(core, TimedCore)
    core.reading = reading
    before_s = reading()
    run = driver.run()
    whole_s = reading() - before_s
    n = len(workload)
    return CoreCost(core.spent_s / n, whole_s / n, n / max(1, sum(stats.batches for stats in run.stats)))
