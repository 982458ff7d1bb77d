"""Requests and their times: the instruments that every request writes, by hand.

A hit in memory takes some 60 us in all. The client library's counters and histograms lock, check and search linearly,
2 us each; these are a list and a bisection, and look the same to who scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tandem.telemetry.base import Instrument


class Times:
    """A histogram of seconds; ``edges`` are inclusive and ascending. For one thread."""

    __slots__ = ("_edges", "counts", "total_s")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self._edges, seconds)] += 1
        self.total_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """As the exposition has them: each edge with the count of all up to it."""
        names = [*map(floatToGoString, self._edges), "+Inf"]
        return [(name, float(count)) for name, count in zip(names, accumulate(self.counts), strict=True)]


class TimesByLabels(Collector):
    """An instrument of such histograms."""

    def __init__(self, row: Instrument) -> None:
        self._row = row
        self._times: dict[tuple[str, ...], Times] = {}

    def labels(self, *labels: str) -> Times:
        """That of these labels. To be kept: it is looked for each time."""
        return self._times.setdefault(labels, Times(self._row.buckets))

    def describe(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(self._row.name, self._row.help, labels=self._row.labels)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._row.name, self._row.help, labels=self._row.labels)
        for labels, times in self._times.items():
            family.add_metric(labels, times.buckets(), times.total_s)
        yield family


class Answered:
    """Requests with the same labels: how many, and the times of all of their route."""

    __slots__ = ("count", "times")

    def __init__(self, times: Times) -> None:
        self.count = 0
        self.times = times


class RequestCounts(Collector):
    """Answered requests by API, route and status."""

    def __init__(self, row: Instrument, durations: TimesByLabels) -> None:
        self._row = row
        self._durations = durations
        self._answered: dict[tuple[str, str, int], Answered] = {}

    def count(self, api: str, route: str, status: int, seconds: float) -> None:
        """One of them, and how long it took."""
        key = (api, route, status)
        answered = self._answered.get(key)
        if answered is None:
            answered = self._answered[key] = Answered(self._durations.labels(api, route))
        answered.count += 1
        answered.times.observe(seconds)

    def describe(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._row.name, self._row.help, labels=self._row.labels)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._row.name, self._row.help, labels=self._row.labels)
        for (api, route, status), answered in self._answered.items():
            family.add_metric([api, route, str(status)], answered.count)
        yield family
