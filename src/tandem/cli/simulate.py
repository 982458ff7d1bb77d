"""``tandem simulate``: the real scheduler on a virtual clock, over devices of which only the profiles are here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tandem.simulation.study import Plan

DEFAULT_DISPATCHER, DEFAULT_POLICY = "earliest_finish", "memory_aware"
COST_REQUESTS = 50_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options; docs/simulation.md explains them at length."""
    add = parser.add_argument
    add("--devices", action="append", metavar="SPEC", help="as cpu+h100-derived*2; again for another fleet (cpu)")
    add("--model", default="minilm", help="whose profiles: minilm or bert-base (default %(default)s)")
    add("--dispatcher", default=DEFAULT_DISPATCHER, metavar="A,B", help="one or several, or all (default %(default)s)")
    add("--policy", default=DEFAULT_POLICY, metavar="A,B", help="one or several, or all (default %(default)s)")
    add("--arrivals", default="poisson", help="poisson, bursty, azure-llm-2023, mooncake, ragpulse or servegen")
    add("--requests", type=int, help="how many (default: 10,000, or all of a trace)")
    add("--load", default="", metavar="X,Y", help="share of the first fleet's capacity (default 0.7)")
    add("--rate", default="", metavar="X,Y", help="requests a second")
    add("--as-recorded", action="store_true", help="a trace at its own speed")
    add("--lengths", default="questions", help="questions, mix or a number of tokens, where arrivals bring none")
    add("--cv", type=float, default=4.0, help="how bursty: coefficient of variation of gaps (default %(default)s)")
    add("--objective", type=float, default=0.1, metavar="S", help="latency objective (default %(default)s s)")
    add("--timeout", type=float, default=0.0, metavar="S", help="deadline of each request, 0 for none (default)")
    add("--max-queue", type=float, default=30.0, metavar="S", help="refuse beyond it, 0 for never (default 30 s)")
    add("--no-host", action="store_true", help="leave out what the server itself costs: the scheduler alone")
    add("--no-scatter", action="store_true", help="each batch takes its mean time")
    add("--bound", action="store_true", help="compare goodput with a schedule that knows all arrivals")
    add("--cost", action="store_true", help="measure the scheduler's own time for a request, and nothing else")
    add("--validate", action="store_true", help="run the real server beside it, on this machine")
    add("--serve", default="", metavar="MODEL", help="what --validate serves (default: the default model)")
    add("--seconds", type=float, default=20.0, help="length of each run of --validate (default %(default)s)")
    add("--rounds", type=int, default=3, help="runs of each load of --validate (default %(default)s)")
    add("--data", help="folder of traces (default: $TANDEM_DATA, else ../shared/data)")
    add("--seed", type=int, default=0, help="of every random choice (default %(default)s)")
    add("--out", type=Path, help="folder for JSON and pictures (default: none are written)")


def run(args: argparse.Namespace) -> int:
    """Simulate, print, write. Raises ConfigError."""
    if args.cost:
        from tandem.cli.simulate_cost import run_cost

        args.requests = args.requests or COST_REQUESTS
        return run_cost(plan_of(args))
    if args.validate:
        from tandem.cli.simulate_validate import run_validate

        return run_validate(args)
    from tandem.cli.simulate_report import Report
    from tandem.simulation.driver import Options
    from tandem.simulation.study import prepare

    plan = plan_of(args)
    options = Options(
        latency_objective_s=plan.objective_s,
        timeout_s=args.timeout,
        max_queue_s=args.max_queue,
        scatter=not args.no_scatter,
        seed=args.seed,
    )
    report = Report(prepare(plan, options))
    for line in report.head():
        print(line)
    for line in report.rows():
        print(line, flush=True)
    for path in report.write(args.out) if args.out else ():
        print(f"wrote {path}", file=sys.stderr)
    return 0


def plan_of(args: argparse.Namespace) -> Plan:
    """The command line as a plan. Raises ConfigError for a name or a number that is none."""
    from tandem.batching import POLICIES
    from tandem.bench.texts import data_folder
    from tandem.scheduling.dispatch import DISPATCHERS
    from tandem.simulation.base import Draw
    from tandem.simulation.study import Plan

    loads, rates = _numbers("--load", args.load), _numbers("--rate", args.rate)
    return Plan(
        devices=tuple(args.devices or ("cpu",)),
        model=args.model,
        dispatchers=_names(args.dispatcher, DISPATCHERS.names(), "dispatcher"),
        policies=_names(args.policy, POLICIES.names(), "batch policy"),
        arrivals=args.arrivals,
        draw=Draw(
            requests=args.requests, lengths=args.lengths, cv=args.cv, seed=args.seed, data=data_folder(args.data)
        ),
        loads=loads or (() if rates or args.as_recorded else (0.7,)),
        rates=rates,
        objective_s=args.objective,
        host=not args.no_host,
        bound=args.bound,
    )


def _names(text: str, known: tuple[str, ...], kind: str) -> tuple[str, ...]:
    from tandem.errors import ConfigError

    names = known if text == "all" else tuple(text.split(","))
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f"unknown {kind} {', '.join(unknown)!r}; known are: {', '.join(known)}")
    return names


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    from tandem.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise ConfigError(f"{flag} takes numbers with commas between them, got {text!r}") from error
