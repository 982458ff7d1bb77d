"""The real scheduler on a virtual clock, over devices whose times come from profiles. Arrivals by name."""

from __future__ import annotations

from tandem.registry import Registry
from tandem.simulation.base import Arrivals, Draw, Workload

ARRIVALS: Registry[Arrivals] = Registry("arrivals")
ARRIVALS.register("poisson", "tandem.simulation.arrivals:poisson")
ARRIVALS.register("bursty", "tandem.simulation.arrivals:bursty")
ARRIVALS.register("azure-llm-2023", "tandem.simulation.traces:azure")
ARRIVALS.register("mooncake", "tandem.simulation.traces:mooncake")
ARRIVALS.register("ragpulse", "tandem.simulation.traces:ragpulse")
ARRIVALS.register("servegen", "tandem.simulation.traces:servegen")

__all__ = ["ARRIVALS", "Arrivals", "Draw", "Workload"]
