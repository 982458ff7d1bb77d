"""The caches' counters at each scrape: they count for themselves, so the path of a hit stays free of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tandem.telemetry.base import Instrument, Kind

Reading: TypeAlias = Mapping[str, Mapping[tuple[str, ...], float]]
"""By instrument's name, the value for each set of its labels."""


class ReadAtScrape(Collector):
    """Instruments whose values are read when somebody asks."""

    def __init__(self, rows: Iterable[Instrument], read: Callable[[], Reading]) -> None:
        self._rows = tuple(rows)
        self._read = read

    def describe(self) -> Iterator[Metric]:
        return (_family(row) for row in self._rows)

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        for row in self._rows:
            family = _family(row)
            for labels, value in reading.get(row.name, {}).items():
                family.add_metric(list(labels), value)
            yield family


def _family(row: Instrument) -> CounterMetricFamily | GaugeMetricFamily:
    make = CounterMetricFamily if row.kind is Kind.COUNTER else GaugeMetricFamily
    return make(row.name, row.help, labels=row.labels)
