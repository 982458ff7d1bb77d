"""Every instrument of the service, in one table: name, kind, help, labels, buckets.

Names follow the Prometheus conventions (https://prometheus.io/docs/practices/naming/): base units, ``_total`` on
counters, no unit abbreviations. The table in ``docs/api.md`` is checked against this one. Those of the caches are in
``cache_instruments.py``.
"""

from __future__ import annotations

from tandem.telemetry.base import Instrument, Kind
from tandem.telemetry.cache_instruments import CACHE_INSTRUMENTS

# 0.02, 0.1 and 0.2 s are the service's own objectives (p50, p95, p99): an objective that is a bucket's edge is a
# counter that Prometheus reads exactly, and not an interpolation between two edges.
REQUEST_EDGES_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STAGE_EDGES_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
BATCH_TEXTS_EDGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

REQUESTS = Instrument(
    "tandem_requests_total",
    Kind.COUNTER,
    "Requests answered, by API, route and status code; 499 is a client that left.",
    ("api", "route", "status"),
)
REQUEST_DURATION = Instrument(
    "tandem_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from a request's headers to the end of its reply.",
    ("api", "route"),
    REQUEST_EDGES_S,
)
STAGE_DURATION = Instrument(
    "tandem_stage_duration_seconds",
    Kind.HISTOGRAM,
    "Time of one request in one stage: queue, tokenize, infer or encode; queue and infer are means over its texts.",
    ("stage",),
    STAGE_EDGES_S,
)
BATCH_TOKENS = Instrument(
    "tandem_batch_tokens_total",
    Kind.COUNTER,
    "Real tokens that ran, padding left out.",
    ("device",),
)
BATCH_PADDED_TOKENS = Instrument(
    "tandem_batch_padded_tokens_total",
    Kind.COUNTER,
    "Tokens that ran, padding included; padding waste is 1 - tokens / padded tokens.",
    ("device",),
)
BATCH_TEXTS = Instrument("tandem_batch_texts", Kind.HISTOGRAM, "Texts in a batch.", ("device",), BATCH_TEXTS_EDGES)
BATCH_DURATION = Instrument(
    "tandem_batch_duration_seconds",
    Kind.HISTOGRAM,
    "Time of one batch on its device; the sum over time is the device's utilisation.",
    ("device",),
    STAGE_EDGES_S,
)
BATCH_FAILURES = Instrument(
    "tandem_batch_failures_total",
    Kind.COUNTER,
    "Batches that failed, or that a device went down with; each is run again.",
    ("device",),
)
DEVICE_UP = Instrument("tandem_device_up", Kind.GAUGE, "1 while a device answers as it should, else 0.", ("device",))
POOL_BYTES = Instrument(
    "tandem_pool_bytes",
    Kind.GAUGE,
    "Memory shared with a device's worker process: held by batches (in_use), the most ever held (high_water), taken "
    "from the system (reserved).",
    ("device", "state"),
)
QUEUE_TEXTS = Instrument("tandem_queue_texts", Kind.GAUGE, "Texts that wait for a device.")
QUEUE_TOKENS = Instrument("tandem_queue_tokens", Kind.GAUGE, "Tokens that wait for a device.")
INFLIGHT_REQUESTS = Instrument("tandem_inflight_requests", Kind.GAUGE, "Requests accepted and not yet answered.")
BUILD_INFO = Instrument(
    "tandem_build_info",
    Kind.GAUGE,
    "Always 1; the labels say what is served.",
    ("version", "model", "tier", "device"),
)

INSTRUMENTS = (
    REQUESTS,
    REQUEST_DURATION,
    STAGE_DURATION,
    BATCH_TOKENS,
    BATCH_PADDED_TOKENS,
    BATCH_TEXTS,
    BATCH_DURATION,
    BATCH_FAILURES,
    DEVICE_UP,
    POOL_BYTES,
    QUEUE_TEXTS,
    QUEUE_TOKENS,
    INFLIGHT_REQUESTS,
    *CACHE_INSTRUMENTS,
    BUILD_INFO,
)
