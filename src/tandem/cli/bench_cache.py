"""``tandem bench cache``: row E2, each cache tier alone and all together, a hit over HTTP, and real traffic."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.models.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from tandem.bench.cache_tiers import TierRun
    from tandem.bench.report import Report
    from tandem.config import Settings

DOCUMENT = {"L1": 0.65, "L2": 0.25, "semantic": 0.08, "together": 0.98}
PARTS = ("tiers", "http", "engine", "traffic")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="what is served (default %(default)s)")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="tier (default %(default)s)")
    add("--threads", type=int, default=2, help="threads for inference (default %(default)s)")
    add("--unique", type=int, default=1000, help="different texts (default %(default)s)")
    add("--requests", type=int, default=10_000, help="requests over them (default %(default)s)")
    add("--seconds", type=float, default=10.0, help="length of each load over HTTP (default %(default)s)")
    add("--rounds", type=int, default=3, help="of the load over HTTP (default %(default)s)")
    add("--only", action="append", default=[], metavar="PART", choices=PARTS, help=", ".join(PARTS))
    add("--data", help="folder of texts (default: $TANDEM_DATA, else ../shared/data, else generated texts)")
    add("--seed", type=int, default=0, help="of every random choice (default %(default)s)")
    add("--out", type=Path, default=Path("bench/results"), help="folder for JSON and pictures (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure, print and write; 1 when a row was wrong. Raises ConfigError, ModelError, JobError."""
    from tandem.bench.conditions import Neighbours, conditions
    from tandem.bench.report import Report
    from tandem.bench.texts import data_folder
    from tandem.config import Settings

    workload = {
        "requests": f"{args.requests:,} over {args.unique:,} texts, one caller; seed {args.seed}",
        "model": f"{args.model}, {args.precision}, {args.threads} threads",
    }
    report = Report("tandem bench cache", conditions(workload))
    neighbours = Neighbours()
    settings = Settings(model=args.model, precision=args.precision, threads=args.threads)
    data = data_folder(args.data)
    for part, work in (("tiers", _tiers), ("engine", _engine), ("http", _http), ("traffic", _traffic)):
        if part in (args.only or PARTS):
            print(f"running: {part}", file=sys.stderr, flush=True)
            work(args, settings, data, report)
    report.busy_by_others = neighbours.share()
    print(report.text())
    for path in report.write(args.out, "cache"):
        print(f"wrote {path}", file=sys.stderr)
    return 0 if report.right else 1


def _tiers(args: argparse.Namespace, settings: Settings, data: Path | None, report: Report) -> None:
    import numpy as np

    from tandem.bench.cache_tiers import drawn, plain_dict_bytes, run_tier, settings_of
    from tandem.bench.redis_child import RedisChild
    from tandem.bench.report import Figure, Met, missing
    from tandem.bench.texts import questions
    from tandem.embedder import Embedder

    texts = list(dict.fromkeys(questions(data).texts))[: args.unique]
    with Embedder(settings=settings) as embedder:
        reference, dims = embedder.embed(texts, normalize=True), embedder.dimensions
    naive = plain_dict_bytes(texts, dims)
    report.details["document"] = DOCUMENT
    for name, share in DOCUMENT.items():
        report.figures.append(Figure(f"the document: {name}", "", f"{share:.0%} hits", Met.INFO))
    for zipf in (True, False):
        requests = drawn(texts, args.requests, zipf, args.seed)
        with tempfile.TemporaryDirectory() as folder:
            redis = RedisChild(Path(folder)) if RedisChild.installed() else None
            runs: list[TierRun] = []
            if redis is not None:
                redis.__enter__()
            try:
                ways = settings_of(settings, dims, len(texts), redis.url if redis else None, Path(folder))
                for name, way in ways.items():
                    print(f"running: {requests.name}, {name}", file=sys.stderr, flush=True)
                    if redis is not None and "Redis" in name:
                        _flush(redis.url)
                    runs.append(run_tier(name, way, requests, np.asarray(reference)))
            finally:
                if redis is not None:
                    redis.stop()
        report.details[f"tiers, {requests.name}"] = runs
        _show_runs(report, requests.name, runs, args.requests, len(texts), naive)
        if redis is None:
            report.figures.append(missing(f"Redis, {requests.name}", "", "redis-server is not installed"))


def _flush(url: str) -> None:
    from redis import Redis

    with Redis.from_url(url) as client:
        client.flushall()


def _show_runs(report: Report, name: str, runs: list[TierRun], requests: int, texts: int, naive: float) -> None:
    from tandem.bench.report import Check, Figure, Met, at_least

    possible = 1 - texts / requests
    without = runs[0]
    for run in runs:
        saved = (
            ""
            if run.row_bytes is None
            else f"; {run.row_bytes:,.0f} bytes a row, {run.row_bytes / naive:.0%} of a dict's"
        )
        by = ", ".join(
            f"{source} {run.hits[source]:,} at {1e6 * median:,.0f} us" for source, median in sorted(run.medians.items())
        )
        measured = f"{run.hit_rate:.1%} hits: {by}; mean {1e3 * run.mean_s:.3f} ms{saved}"
        report.figures.append(Figure(f"{name}: {run.name}", "", measured, Met.INFO))
        report.checks.append(
            Check(f"{name}, {run.name}: least cosine to the rows without a cache", run.least_cosine, 0.999)
        )
    last = runs[-1]
    report.figures.append(
        at_least(f"{name}, together: hits of what is possible ({possible:.0%})", 0.98, last.hit_rate / possible, "", 4)
    )
    less = 100 * (1 - last.hit_s / without.p50_s)
    report.figures.append(at_least(f"{name}, together: latency of a hit, less by", 97, less, " %"))
    least = 100 * (1 - last.mean_s / without.mean_s)
    report.figures.append(
        Figure(
            f"{name}, together: mean latency of all requests, less by",
            f"{100 * possible:.0f} % at best",
            f"{least:.1f} %",
            Met.INFO,
        )
    )
    if last.row_bytes is not None:
        report.figures.append(
            at_least(
                f"{name}, together: memory a row, less than a dict of arrays by",
                55,
                100 * (1 - last.row_bytes / naive),
                " %",
            )
        )


def _engine(args: argparse.Namespace, settings: Settings, data: Path | None, report: Report) -> None:
    from tandem.bench.cache_engine import time_hits
    from tandem.bench.report import at_most, shown
    from tandem.bench.texts import questions

    looked_up, asked = time_hits(settings, questions(data).texts[: args.unique])
    report.figures.append(at_most("an L1 hit in the engine, hash included, p50", 5, looked_up, " us"))
    report.figures.append(shown("the whole call of the engine for it, normalised, p50", asked, " us"))


def _http(args: argparse.Namespace, settings: Settings, data: Path | None, report: Report) -> None:
    from tandem.bench.cache_http import bare_server, hit_server, hits
    from tandem.bench.processes import Server
    from tandem.bench.report import Series, at_least, at_most, shown
    from tandem.bench.stats import paired_ratio, summarize
    from tandem.bench.texts import questions

    texts = questions(data).texts[: args.unique]
    rates: dict[str, list[float]] = {"tandem, hits": [], "empty handler": []}
    tails, spent = [], []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        hit = Server(hit_server(args.model, args.precision, args.threads), work / "tandem.log")
        bare = Server(bare_server(), work / "bare.log")
        with hit, bare:
            for _ in range(args.rounds):
                before = hit.cpu_s()
                found = hits(hit, texts, args.seconds, work)
                spent.append(1e6 * (hit.cpu_s() - before) / max(1, found.ok + len(texts)))
                rates["tandem, hits"].append(found.ok / found.seconds)
                tails.append(1e3 * found.latency.p99_s)
                if found.errors:
                    report.problems.append(f"hits over HTTP failed: {found.errors}")
                other = hits(bare, texts, args.seconds, work)
                rates["empty handler"].append(other.ok / other.seconds)
    for name, values in rates.items():
        report.series.append(Series(name, "requests/s", summarize(values)))
    report.figures += [
        at_least("L1 hits over HTTP, 64 connections", 12_000, summarize(rates["tandem, hits"]), " req/s", 0),
        at_most("their p99", 15, summarize(tails), " ms"),
        shown("of what the empty handler does", paired_ratio(rates["tandem, hits"], rates["empty handler"]), "x"),
        shown("CPU a hit, all of the server", summarize(spent), " us", 1),
    ]


def _traffic(args: argparse.Namespace, settings: Settings, data: Path | None, report: Report) -> None:
    from tandem.bench.cache_traffic import streams, through_caches
    from tandem.bench.report import Check, Figure, Met, missing

    found = streams(data)
    if not found:
        report.figures.append(missing("real traffic", "", "no data folder"))
    for stream in found:
        with tempfile.TemporaryDirectory() as folder:
            passage = through_caches(settings, stream, Path(folder))
        report.details[f"traffic, {stream.name}"] = passage
        words = [f"{name} {share.texts:.2%} ({share.tokens:.2%})" for name, share in passage.by.items()]
        name = f"{stream.name}, {len(stream.texts):,} texts: share (of tokens) from"
        came = f"{passage.possible:.2%} had come before in the same words; {stream.source}"
        report.figures.append(Figure(name, "", ", ".join(words), Met.INFO, came))
        report.checks += [
            Check(f"{stream.name}: texts answered of those asked", passage.answered / len(stream.texts), 1.0),
            Check(f"{stream.name}: different texts over computed ones", passage.different / passage.computed, 1.0),
        ]
