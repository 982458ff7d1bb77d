from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.batching import BatchLimits
from tandem.errors import ConfigError
from tandem.simulation.base import Draw
from tandem.simulation.chart import lines
from tandem.simulation.driver import Options
from tandem.simulation.measure import Meter, grid, measure
from tandem.simulation.scaling import scale
from tandem.simulation.stopwatch import core_cost
from tandem.simulation.study import Plan, prepare
from tandem.types import TokenBatch
from tests.unit.simulation.made import FAST, SLOW, fleet, requests


def plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "devices": ("cpu",),
        "model": "minilm",
        "dispatchers": ("earliest_finish", "round_robin"),
        "policies": ("memory_aware",),
        "arrivals": "poisson",
        "draw": Draw(requests=200),
        "loads": (0.3,),
    }
    return Plan(**fields | changes)


def test_every_fleet_runs_by_every_dispatcher_at_every_load() -> None:
    study = prepare(plan(devices=("cpu", "cpu+l4-derived"), loads=(0.2, 0.4), bound=True), Options())
    rows = [(row.devices, row.dispatcher, round(row.load, 3)) for row in study.rows()]
    both = "cpu+l4-derived"
    once = [("cpu", "earliest_finish"), (both, "earliest_finish"), (both, "round_robin")]
    assert rows == [(*way, load) for load in (0.2, 0.4) for way in once]
    assert all(row.of_bound is not None and row.of_bound <= 1 + 1e-9 for row in study.rows())
    assert [name for name, _ in study.labels] == ["cpu", "l4-derived"]
    assert "Derived, not measured" in study.labels[1][1]


def test_a_load_is_of_the_server_where_that_is_the_narrower() -> None:
    around, alone = (prepare(plan(devices=("h100-derived+cpu",), host=host), Options()) for host in (True, False))
    assert around.capacity < alone.capacity / 10


def test_a_trace_can_run_as_recorded() -> None:
    (row,) = prepare(plan(loads=(), rates=(50.0,), dispatchers=("least_work",)), Options()).rows()
    assert row.summary.offered == pytest.approx(50.0)
    (row,) = prepare(plan(loads=(), dispatchers=("least_work",)), Options()).rows()
    assert row.summary.offered == pytest.approx(1.0, rel=0.3)


def test_loads_out_of_range_are_refused() -> None:
    for changes in ({"loads": (-0.5,)}, {"loads": (), "rates": (0.0,)}, {"loads": (float("nan"),)}):
        with pytest.raises(ConfigError, match="must be over 0"):
            prepare(plan(**changes), Options())


def test_two_equal_devices_do_twice_as_much() -> None:
    one, two, four = scale("cpu", "minilm", "mix", 1500, 0)
    assert two.throughput / one.throughput >= 1.9
    assert four.throughput / one.throughput >= 3.6
    assert 0 < four.utilisation <= 1
    assert 0 < one.with_server <= one.throughput


def test_the_stopwatch_reads_what_it_is_given() -> None:
    ticks = iter(range(1_000_000))
    cost = core_cost(fleet(FAST, SLOW), requests([0.0, 0.1], [10, 10]), Options(), lambda: float(next(ticks)))
    assert 0 < cost.core_s < cost.whole_s


class CountingBackend(FakeBackend):
    """Says what it would have taken instead of taking it."""

    spent_s = 0.0

    cold = False

    def cool(self) -> None:
        self.cold = True

    def run(self, batch: TokenBatch) -> Any:
        self.spent_s += 1e-3 + 5e-5 * batch.ids.size + 2e-4 * self.cold
        self.cold = False
        return np.zeros((len(batch.lengths), 1), np.float32)


def test_a_measured_device_has_the_cost_of_its_backend() -> None:
    backend = CountingBackend(FakeOptions(streams=1))
    limits = BatchLimits(max_tokens=512, max_width=128)
    found = measure(backend, limits, Meter(lambda: backend.spent_s, backend.cool), count=30, seed=0, token_id=1)
    assert found.fitted.cost.fixed_s == pytest.approx(1e-3, rel=0.1)
    assert found.fitted.cost.token_s == pytest.approx(5e-5, rel=0.01)
    assert found.fitted.cold_s == pytest.approx(2e-4, rel=0.5)
    assert found.speeds == (1.0,)


def test_the_grid_holds_what_a_server_runs() -> None:
    limits = BatchLimits(max_tokens=512, max_width=128)
    batches = grid(limits, 60, 0)
    assert all(min(lengths) >= 1 and max(lengths) <= 128 for lengths in batches)
    assert all(sum(lengths) <= 512 or len(lengths) == 1 for lengths in batches)
    assert {1} < {len(lengths) for lengths in batches}


def test_a_chart_is_well_formed_whatever_it_shows() -> None:
    for series in ([], [("a & b", [(1.0, 2.0), (10.0, 3.0)])], [("one", [(1.0, 0.0)])]):
        for log_x in (False, True):
            assert ET.fromstring(lines("<title>", "x", "y", series, log_x=log_x)).tag.endswith("svg")
