"""What an instrument is: a row of the table."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What Prometheus calls the type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Instrument(msgspec.Struct, frozen=True):
    """One row of the table. ``buckets`` are upper edges, ascending, without +Inf; histograms only."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
