"""What a Prometheus server reads from a ``Metrics``."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tandem.telemetry import INSTRUMENTS, Kind, Metrics
from tandem.telemetry.cache_instruments import CACHE_INSTRUMENTS
from tandem.types import Outcome, StageTimes


def read(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the exposition, by name and sorted labels."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def outcome(ok: bool = True) -> Outcome:
    return Outcome("cpu:0", 3, 30, 36, 300, 10.0, 10.25, ok)


def used() -> Metrics:
    metrics = Metrics()
    metrics.request("openai", "/v1/embeddings", 200, 0.015)
    metrics.stages(StageTimes(0.001, 0.002, 0.003, 0.006))
    metrics.encoded(0.0001)
    metrics.batch(outcome())
    metrics.watch_queue(lambda: 5.0, lambda: 50.0)
    metrics.watch_inflight(lambda: 2.0)
    metrics.describe("0.1.0", "a/model", "bf16", "cpu")
    metrics.read_caches = lambda: {row.name: {("x",) * len(row.labels): 1.0} for row in CACHE_INSTRUMENTS}
    return metrics


def test_a_fresh_registry_renders_and_parses() -> None:
    assert read(Metrics())


def test_every_instrument_of_the_table_is_rendered_with_its_help_and_kind() -> None:
    text = used().render().decode()
    for row in INSTRUMENTS:
        assert f"# HELP {row.name} {row.help}\n" in text
        assert f"# TYPE {row.name} {row.kind.value}\n" in text


def test_padding_waste_comes_from_two_counters() -> None:
    metrics = Metrics()
    metrics.batch(outcome())
    metrics.batch(outcome())
    samples = read(metrics)
    device = (("device", "cpu:0"),)
    assert samples["tandem_batch_tokens_total", device] == 60
    assert samples["tandem_batch_padded_tokens_total", device] == 72
    assert samples["tandem_batch_texts_sum", device] == 6
    assert samples["tandem_batch_duration_seconds_sum", device] == 0.5


def test_a_failed_batch_counts_as_a_failure_and_not_as_work() -> None:
    metrics = Metrics()
    metrics.batch(outcome(ok=False))
    samples = read(metrics)
    device = (("device", "cpu:0"),)
    assert samples["tandem_batch_failures_total", device] == 1
    assert samples["tandem_batch_tokens_total", device] == 0
    assert samples["tandem_batch_texts_count", device] == 0


@pytest.mark.parametrize("edge", [0.02, 0.1, 0.2])
def test_each_latency_objective_is_an_exact_edge(edge: float) -> None:
    metrics = Metrics()
    metrics.request("openai", "/v1/embeddings", 200, edge)
    metrics.request("openai", "/v1/embeddings", 200, edge * 1.001)
    labels = (("api", "openai"), ("le", str(edge)), ("route", "/v1/embeddings"))
    assert read(metrics)["tandem_request_duration_seconds_bucket", labels] == 1


def test_gauges_are_read_at_the_scrape() -> None:
    metrics = Metrics()
    depth = [1.0]
    metrics.watch_queue(lambda: depth[0], lambda: depth[0] * 10)
    assert read(metrics)["tandem_queue_tokens", ()] == 10
    depth[0] = 3.0
    assert read(metrics)["tandem_queue_texts", ()] == 3
    assert read(metrics)["tandem_queue_tokens", ()] == 30


def test_two_metrics_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.batch(outcome())
    assert ("tandem_batch_tokens_total", (("device", "cpu:0"),)) not in read(second)


def test_names_follow_the_conventions() -> None:
    names = [row.name for row in INSTRUMENTS]
    assert len(set(names)) == len(names)
    for row in INSTRUMENTS:
        assert row.name.startswith("tandem_")
        assert row.name.endswith("_total") == (row.kind is Kind.COUNTER), row.name
        assert bool(row.buckets) == (row.kind is Kind.HISTOGRAM), row.name
        assert list(row.buckets) == sorted(set(row.buckets)), row.name
        assert not set(row.labels) & {"le", "quantile", "job", "instance"}, row.name


def test_no_label_is_what_callers_choose() -> None:
    for row in CACHE_INSTRUMENTS:
        assert not set(row.labels) & {"namespace", "tenant", "key", "model", "text"}, row.name


def test_no_created_series() -> None:
    assert b"_created" not in used().render()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_of() -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=used().render(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
