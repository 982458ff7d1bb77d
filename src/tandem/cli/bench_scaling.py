"""``tandem bench scaling``: 1, 2 and 4 devices, 10,000 requests; real where they are here, else simulated."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.models.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from tandem.bench.report import Figure, Report
    from tandem.bench.scaling import RealRun
    from tandem.simulation.scaling import ScaledRun

ASKED = {2: 1.9, 4: 3.6}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="what real devices serve (default %(default)s)")
    add("--precision", choices=("fp32", "bf16"), default="bf16", help="Tandem's tier (default %(default)s)")
    add("--threads", type=int, default=2, help="threads for inference (default %(default)s)")
    add("--profile", action="append", help="simulated devices, a name or file; again for more (cpu, h100-derived)")
    add("--profile-model", default="minilm", help="whose profiles: minilm or bert-base (default %(default)s)")
    add("--requests", type=int, default=10_000, help="in each run (default %(default)s)")
    add("--simulated-only", action="store_true", help="start no server")
    add("--data", help="folder of texts (default: $TANDEM_DATA, else ../shared/data, else generated texts)")
    add("--seed", type=int, default=0, help="of every random choice (default %(default)s)")
    add("--out", type=Path, default=Path("bench/results"), help="folder for JSON and pictures (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure what is here, simulate the rest, print and write. Raises ConfigError, JobError."""
    from tandem.bench.conditions import Neighbours, conditions
    from tandem.bench.report import Report
    from tandem.bench.scaling import RealOptions, devices_here, measure_scaling
    from tandem.simulation.scaling import scale

    profiles = args.profile or ["cpu", "h100-derived"]
    workload = {"requests": f"{args.requests:,} a run, seed {args.seed}", "simulated": ", ".join(profiles)}
    report = Report("tandem bench scaling", conditions(workload))
    neighbours = Neighbours()
    _add_document(report)
    for profile in profiles:
        # 10,000 questions keep a GPU busy for 25 ms: eight batches, and nothing to scale.
        for lengths in ("mix",) if profile.endswith("-derived") else ("questions", "mix"):
            runs = scale(profile, args.profile_model, lengths, args.requests, args.seed)
            _add_simulated(report, profile, lengths, runs)
    if not args.simulated_only:
        options = RealOptions(
            model=args.model, precision=args.precision, threads=args.threads, data=args.data, requests=args.requests
        )
        print("running: real devices", file=sys.stderr, flush=True)
        _add_real(report, measure_scaling(options, devices_here()))
    report.busy_by_others = neighbours.share()
    print(report.text())
    for path in report.write(args.out, "scaling"):
        print(f"wrote {path}", file=sys.stderr)
    return 0


def _add_document(report: Report) -> None:
    from tandem.bench.report import Figure, Met
    from tandem.bench.scaling import DOCUMENT

    for count, (rate, speed_up, busy) in DOCUMENT.items():
        measured = f"{rate:,} req/s, {speed_up:g}x, {busy:.0%} busy"
        report.figures.append(
            Figure(f"the document's table, {count} device{'s' * (count > 1)}", "", measured, Met.INFO)
        )


def _add_simulated(report: Report, profile: str, lengths: str, runs: list[ScaledRun]) -> None:
    from tandem.bench.report import Series, at_least, shown
    from tandem.bench.stats import summarize

    one = runs[0]
    if one.label not in report.notes:
        report.notes.append(one.label)
    for each in runs:
        name = f"{each.count} x {profile}, {lengths}, simulated"
        report.series.append(Series(name, "req/s", summarize([each.throughput])))
        speed_up = each.throughput / one.throughput
        figures: list[Figure] = [shown(f"{name}: throughput", each.throughput, " req/s", 0)]
        if each.count in ASKED:
            figures.append(at_least(f"{name}: speed-up", ASKED[each.count], speed_up, "x", 3))
        figures.append(shown(f"{name}: busy", 100 * each.utilisation, " %", 1))
        figures.append(shown(f"{name}: p50 at 70 % load", 1e3 * each.p50_s, " ms", 1))
        figures.append(shown(f"{name}: p99 at 70 % load", 1e3 * each.p99_s, " ms", 1))
        if each.with_server:
            figures.append(shown(f"{name}: throughput through one server", each.with_server, " req/s", 0))
        report.figures += figures
    report.details[f"{profile}, {lengths}"] = runs


def _add_real(report: Report, runs: list[RealRun]) -> None:
    from tandem.bench.report import Series, missing, shown
    from tandem.bench.stats import summarize

    first: dict[str, float] = {}
    for each in runs:
        kind = each.devices.partition(":")[0].partition("*")[0]
        base = first.setdefault(kind, each.result.rate)
        name = f"real {each.devices}, questions"
        report.series.append(Series(f"tandem, {name}", "req/s", summarize([each.result.rate])))
        report.figures += [
            shown(f"{name}: throughput", each.result.rate, " req/s", 0),
            shown(f"{name}: against one", each.result.rate / base, "x", 3),
            shown(f"{name}: p50", 1e3 * each.result.latency.p50_s, " ms", 1),
            shown(f"{name}: p99", 1e3 * each.result.latency.p99_s, " ms", 1),
            shown(f"{name}: batches under way", each.slots_busy, "", 2),
        ]
    if not any(each.devices.startswith("cuda") for each in runs):
        report.figures.append(missing("real GPUs: speed-up of 2 and 4", ">= 1.9x, 3.6x", "there is no GPU here"))
    report.details["real"] = runs
