"""The instruments as objects: cheap to write to, rendered on request.

Each ``Metrics`` has its own registry, so two engines in one process, or two tests, never share a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tandem.telemetry import instruments
from tandem.telemetry.base import Instrument, Kind
from tandem.telemetry.cache_collector import ReadAtScrape, Reading
from tandem.telemetry.cache_instruments import CACHE_INSTRUMENTS
from tandem.telemetry.request_times import RequestCounts, TimesByLabels
from tandem.types import Outcome, StageTimes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The Prometheus text format, which every version of Prometheus reads."""


class _Device(msgspec.Struct, frozen=True):
    """The instruments of one device, labels bound: binding costs more than counting."""

    tokens: Counter
    padded_tokens: Counter
    texts: Histogram
    seconds: Histogram
    failures: Counter


class _WithoutCreated:
    """A registry's metrics without the ``_created`` series, which double the exposition and are read by no one.

    The client library's own switch for this is a process-wide global.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            created = f"{metric.name}_created"
            metric.samples = [sample for sample in metric.samples if sample.name != created]
            yield metric


class Metrics:
    """Writes cost a microsecond or two and are safe from any thread, but for ``request``, ``stages`` and ``encoded``,
    which cost less and are the event loop's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Instruments are made in the order of the table, and shown in it.
        durations = TimesByLabels(instruments.REQUEST_DURATION)
        stage = TimesByLabels(instruments.STAGE_DURATION)
        self._requests = RequestCounts(instruments.REQUESTS, durations)
        for collector in (self._requests, durations, stage):
            self._registry.register(collector)
        apart = (instruments.REQUESTS, instruments.REQUEST_DURATION, instruments.STAGE_DURATION, *CACHE_INSTRUMENTS)
        plain = [row for row in instruments.INSTRUMENTS if row not in apart]
        self._made = {row.name: _make(row, self._registry) for row in plain}
        self.read_caches: Callable[[], Reading] = dict
        """Called at each scrape for the caches' instruments."""
        self._registry.register(ReadAtScrape(CACHE_INSTRUMENTS, lambda: self.read_caches()))
        ProcessCollector(registry=self._registry)
        self._tokenize = stage.labels("tokenize")
        self._queue = stage.labels("queue")
        self._infer = stage.labels("infer")
        self._encode = stage.labels("encode")
        self._devices: dict[str, _Device] = {}

    def request(self, api: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. ``route`` is a route of the table, never a raw path, so labels stay few."""
        self._requests.count(api, route, status, seconds)

    def stages(self, times: StageTimes) -> None:
        """Count where one request's time went, as far as the engine knows it."""
        self._tokenize.observe(times.tokenize_s)
        self._queue.observe(times.queue_s)
        self._infer.observe(times.infer_s)

    def encoded(self, seconds: float) -> None:
        """Count the time that one reply took to encode."""
        self._encode.observe(seconds)

    def batch(self, outcome: Outcome) -> None:
        """Count one batch as it happened."""
        device = self._devices.get(outcome.device_id) or self._bind(outcome.device_id)
        if not outcome.ok:
            device.failures.inc()
            return
        device.tokens.inc(outcome.tokens)
        device.padded_tokens.inc(outcome.padded_tokens)
        device.texts.observe(outcome.n)
        device.seconds.observe(outcome.seconds)

    def watch_queue(self, texts: Callable[[], float], tokens: Callable[[], float]) -> None:
        """Read the queue's depth from these functions at each scrape: the path of a request stays free of gauges."""
        self._gauge(instruments.QUEUE_TEXTS).set_function(texts)
        self._gauge(instruments.QUEUE_TOKENS).set_function(tokens)

    def watch_inflight(self, requests: Callable[[], float]) -> None:
        """Read the number of requests in flight from this function at each scrape."""
        self._gauge(instruments.INFLIGHT_REQUESTS).set_function(requests)

    def watch_device(self, device_id: str, up: Callable[[], float]) -> None:
        """Read whether a device is up, 1 or 0, from this function at each scrape."""
        self._gauge(instruments.DEVICE_UP).labels(device_id).set_function(up)

    def watch_pool(self, device_id: str, held: Mapping[str, Callable[[], float]]) -> None:
        """Read the bytes of a device's pool, by state, from these functions at each scrape."""
        for state, read in held.items():
            self._gauge(instruments.POOL_BYTES).labels(device_id, state).set_function(read)

    def describe(self, version: str, model: str, tier: str, device: str) -> None:
        """Set the labels of ``tandem_build_info``."""
        self._gauge(instruments.BUILD_INFO).labels(version, model, tier, device).set(1)

    def render(self) -> bytes:
        """Everything in the Prometheus text format, as ``CONTENT_TYPE``."""
        return generate_latest(_WithoutCreated(self._registry))

    def _bind(self, device_id: str) -> _Device:
        device = _Device(
            self._counter(instruments.BATCH_TOKENS).labels(device_id),
            self._counter(instruments.BATCH_PADDED_TOKENS).labels(device_id),
            self._histogram(instruments.BATCH_TEXTS).labels(device_id),
            self._histogram(instruments.BATCH_DURATION).labels(device_id),
            self._counter(instruments.BATCH_FAILURES).labels(device_id),
        )
        return self._devices.setdefault(device_id, device)

    def _counter(self, row: Instrument) -> Counter:
        made = self._made[row.name]
        assert isinstance(made, Counter), row
        return made

    def _gauge(self, row: Instrument) -> Gauge:
        made = self._made[row.name]
        assert isinstance(made, Gauge), row
        return made

    def _histogram(self, row: Instrument) -> Histogram:
        made = self._made[row.name]
        assert isinstance(made, Histogram), row
        return made


def _make(row: Instrument, registry: CollectorRegistry) -> Collector:
    match row.kind:
        case Kind.COUNTER:
            return Counter(row.name, row.help, row.labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(row.name, row.help, row.labels, registry=registry)
        case Kind.HISTOGRAM:
            return Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)
