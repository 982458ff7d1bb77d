"""Telemetry: one table of instruments, rendered for Prometheus."""

from __future__ import annotations

from tandem.telemetry.base import Instrument, Kind
from tandem.telemetry.cache_collector import Reading
from tandem.telemetry.instruments import INSTRUMENTS
from tandem.telemetry.metrics import CONTENT_TYPE, Metrics

__all__ = ["CONTENT_TYPE", "INSTRUMENTS", "Instrument", "Kind", "Metrics", "Reading"]
