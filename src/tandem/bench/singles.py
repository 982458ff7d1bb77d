"""Single short questions over HTTP: many connections, an open loop, and one question at a time."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from msgspec.structs import replace

from tandem.bench.ceiling import Ceiling, cut_batches
from tandem.bench.context import Context, kept_rows
from tandem.bench.load import LoadJob, LoadResult, Loop, run_load, write_bodies
from tandem.bench.processes import HOST, Server
from tandem.bench.report import Series, at_least, at_most, shown
from tandem.bench.stats import Summary, interleave, summarize
from tandem.bench.wrk import closed_loop, installed
from tandem.fleet import build_backend
from tandem.types import Tier

MANY, FEW = 64, 16
OPEN_SHARE = 0.7
"""The open loop arrives at this share of the rate that the closed loop reached: a busy server, not a drowning one."""
OPEN_CONNECTIONS = 256
ONE_COUNT = 1000
CHECKED = 256


def singles(context: Context) -> None:
    """64 and 16 connections in a closed loop, then Poisson arrivals in an open one."""
    with context.start(context.tandem) as server:
        job = _job(context, server)
        _check(context, job)
        found: dict[str, list[LoadResult]] = {"many": [], "few": []}

        def load(name: str, connections: int) -> Callable[[], float]:
            def run() -> float:
                result = closed_loop(
                    replace(job, connections=connections, seconds=context.options.seconds), context.folder
                )
                context.note_errors(f"singles, {connections} connections", result)
                found[name].append(result)
                return result.rate

            return run

        interleave({"many": load("many", MANY), "few": load("few", FEW)}, context.options.rounds)
        many, few = found["many"][1:], found["few"][1:]
        rate = summarize([result.rate for result in many])
        opened = _open(context, job, rate.median * OPEN_SHARE)
    _report(context, many, few)
    tool = "wrk" if installed() else "tandem's generator"
    context.report.series.append(Series(f"{context.tandem.name}, questions, {MANY} connections, {tool}", "req/s", rate))
    _report_open(context, opened, rate.median * OPEN_SHARE)


def one(context: Context) -> None:
    """One connection, one question at a time, against the backend alone on the same questions."""
    texts = context.questions.texts[:ONE_COUNT]
    ids = context.model.tokenizer.encode(texts, truncate=True).ids
    backend = build_backend(context.settings, context.model)
    batches = cut_batches(context.settings, context.model, [[row] for row in ids], 1, backend)
    ceiling = Ceiling(backend)
    try:
        with context.start(context.tandem) as server:
            job = replace(_job(context, server), connections=1, requests=len(texts))

            def http() -> float:
                result = run_load(job)
                context.note_errors("one at a time", result)
                return result.latency.p50_s

            taken = interleave({"http": http, "backend": lambda: median(ceiling.each(batches))}, context.options.rounds)
    finally:
        ceiling.close()
    over = summarize([1e3 * (h - b) for h, b in zip(taken["http"], taken["backend"], strict=True)])
    for name, label in (
        ("http", "tandem over HTTP, one question at a time"),
        ("backend", "tandem backend, one question"),
    ):
        context.report.series.append(Series(label, "ms at p50", summarize([1e3 * s for s in taken[name]])))
    context.report.figures.append(at_most("one question at a time, over backend time at p50", 1.0, over, " ms", 3))


def _job(context: Context, server: Server) -> LoadJob:
    bodies = context.folder / "questions.bodies"
    write_bodies(bodies, [server.spec.body(text) for text in context.questions.texts])
    return LoadJob(host=HOST, port=server.port, path=server.spec.path, bodies=str(bodies), connections=MANY)


def _check(context: Context, job: LoadJob) -> None:
    """The first questions, with all connections at once, so that they are computed in each other's company."""
    texts = context.questions.texts[:CHECKED]
    kept = context.folder / "questions.answers"
    result = run_load(replace(job, requests=len(texts), keep=str(kept)))
    context.note_errors("questions", result)
    tier = Tier(context.options.precision)
    check = context.judge(texts).check(f"{context.tandem.name} over HTTP, questions", kept_rows(kept), tier)
    context.report.checks.append(check)


def _open(context: Context, job: LoadJob, rate: float) -> list[LoadResult]:
    results = []
    for index in range(context.options.rounds):
        opened = replace(
            job,
            connections=OPEN_CONNECTIONS,
            loop=Loop.OPEN,
            seconds=context.options.seconds,
            rate=rate,
            seed=context.options.seed + index,
        )
        result = run_load(opened)
        context.note_errors(f"open loop, {rate:.0f} req/s", result)
        results.append(result)
    return results


def _report(context: Context, many: list[LoadResult], few: list[LoadResult]) -> None:
    figures = context.report.figures
    rate = summarize([result.rate for result in many])
    figures.append(at_least(f"single questions, {MANY} connections", 1500, rate, " req/s", 0))
    figures.append(at_most(f"single questions, {MANY} connections, p95", 100, _ms(many, "p95_s"), " ms", 1))
    figures.append(at_most(f"single questions, {FEW} connections, p50", 20, _ms(few, "p50_s"), " ms", 1))
    figures.append(shown(f"single questions, {MANY} connections, p99", _ms(many, "p99_s"), " ms", 1))


def _report_open(context: Context, results: list[LoadResult], rate: float) -> None:
    name = f"single questions, open loop at {rate:,.0f} req/s"
    for quantile in ("p50", "p95", "p99"):
        context.report.figures.append(shown(f"{name}, {quantile}", _ms(results, f"{quantile}_s"), " ms", 1))
    context.report.details["open loop"] = {
        "rate": rate,
        "reached": [result.rate for result in results],
        "generator late by p99, s": [result.late_p99_s for result in results],
    }


def _ms(results: list[LoadResult], quantile: str) -> Summary:
    return summarize([1e3 * getattr(result.latency, quantile) for result in results])
