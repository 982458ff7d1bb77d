"""``tandem simulate --validate``: the real server on this machine, and the same arrivals simulated beside it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.load import LoadJob, LoadResult, Loop, run_load, write_bodies
from tandem.bench.processes import HOST, Server
from tandem.bench.texts import cutter, data_folder, english_mix, questions
from tandem.cli.profile_host import metric, start_server
from tandem.config import Settings, source_options
from tandem.errors import ConfigError, JobError
from tandem.models.catalog import DEFAULT_MODEL
from tandem.models.loaded import load_model
from tandem.models.resolve import find_model
from tandem.simulation.base import Workload
from tandem.simulation.driver import Options, simulate
from tandem.simulation.fleet import Member, parse_fleet
from tandem.simulation.result import Summary, summarise

LOADS = (0.3, 0.5, 0.8)
P50_WITHIN, P95_WITHIN = 0.10, 0.15
CONNECTIONS = 256
_CLOSED = 64
_OFF = 1


class Compared(msgspec.Struct, frozen=True):
    """One load: what was measured and what was simulated, seconds; ``waits_s`` and ``batches`` (texts in one): of both,
    the measured first."""

    texts: str
    load: float
    rate: float
    measured: LoadResult
    simulated: Summary
    waits_s: tuple[float, float]
    batch_texts: tuple[float, float]

    @property
    def p50_off(self) -> float:
        return self.simulated.p50_s / self.measured.latency.p50_s - 1

    @property
    def p95_off(self) -> float:
        return self.simulated.p95_s / self.measured.latency.p95_s - 1

    @property
    def agrees(self) -> bool:
        return abs(self.p50_off) <= P50_WITHIN and abs(self.p95_off) <= P95_WITHIN


class Validation(msgspec.Struct, frozen=True):
    """What one run of ``--validate`` works on. ``bodies`` and ``lengths``: the requests, in turn."""

    texts: str
    server: Server
    fleet: list[Member]
    bodies: Path
    lengths: NDArray[np.int64]
    seconds: float
    seed: int

    def capacity(self) -> float:
        """Requests a second in a closed loop, the load generator beside it: the 100 % of the loads."""
        job = msgspec.structs.replace(self._job(), loop=Loop.CLOSED, connections=_CLOSED, seconds=self.seconds / 2)
        _run(job)
        return _run(job).rate

    def compare(self, load: float, rate: float) -> Compared:
        job = msgspec.structs.replace(self._job(), rate=rate)
        before = self._counts()
        measured = _run(job)
        queued_s, queued, texts, batches = (b - a for a, b in zip(before, self._counts(), strict=True))
        workload = self._workload(job)
        profile = self.fleet[0].profile
        run = simulate(self.fleet, workload, Options(host=profile.host, client=True, seed=self.seed))
        simulated = summarise(run, self.fleet, workload, 0.1)
        return Compared(
            texts=self.texts,
            load=load,
            rate=rate,
            measured=measured,
            simulated=simulated,
            waits_s=(queued_s / max(1, queued), simulated.wait_s),
            batch_texts=(texts / max(1, batches), len(workload) / sum(use.batches for use in simulated.devices)),
        )

    def _job(self) -> LoadJob:
        return LoadJob(
            host=HOST,
            port=self.server.port,
            path=self.server.spec.path,
            bodies=str(self.bodies),
            connections=CONNECTIONS,
            loop=Loop.OPEN,
            seconds=self.seconds,
            rate=1.0,
            seed=self.seed,
        )

    def _workload(self, job: LoadJob) -> Workload:
        """The arrivals as the load generator draws them, to the last one."""
        from tandem.bench.load_worker import arrivals

        times_s = arrivals(job)
        return Workload(times_s, np.resize(self.lengths, len(times_s)), self.texts)

    def _counts(self) -> tuple[float, float, float, float]:
        """Of the server so far: seconds queued, requests that were, texts, batches."""
        text = self.server.get("/metrics").decode()
        queue = [line for line in text.splitlines() if line.startswith("tandem_stage_duration") and '"queue"' in line]
        seconds = sum(float(line.rpartition(" ")[2]) for line in queue if "_sum" in line)
        count = sum(float(line.rpartition(" ")[2]) for line in queue if "_count" in line)
        texts, batches = (metric(self.server, f"tandem_batch_texts_{part}") for part in ("sum", "count"))
        return seconds, count, texts, batches


def run_validate(args: argparse.Namespace) -> int:
    """Measure, simulate, compare; 1 when a load is off by more than the bounds. Raises ConfigError, JobError."""
    fleet = parse_fleet((args.devices or ["cpu"])[0], args.model)
    if len(fleet) != 1 or fleet[0].profile.host is None or not fleet[0].profile.measured:
        raise ConfigError("--validate needs one device, by a profile that was measured on this machine with its server")
    settings = Settings(model=args.serve or DEFAULT_MODEL, threads=fleet[0].profile.cores)
    loads = tuple(float(part) for part in args.load.split(",") if part) or LOADS
    neighbours, before = Neighbours(), conditions({})
    print("\n".join(("# tandem simulate --validate", *before.lines(), f"profile   {fleet[0].profile.source}")))
    found: list[Compared] = []
    with tempfile.TemporaryDirectory() as work, start_server(settings, Path(work)) as server:
        for validation in _validations(args, settings, server, fleet, Path(work)):
            capacity = validation.capacity()
            print(f"{validation.texts}: {capacity:,.0f} requests/s in a closed loop of {_CLOSED}", file=sys.stderr)
            found += [validation.compare(load, load * capacity) for load in loads]
    share = neighbours.share()
    print(f"others    used {share:.0%} of the cores meanwhile{'; DISTURBED' if share > 0.1 else ''}\n")
    print("\n".join(table(found)))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / "validate.json"
        content = {"conditions": before, "busy_by_others": share, "rows": found}
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
        print(f"wrote {path}", file=sys.stderr)
    return 0 if all(row.agrees for row in found) else _OFF


def _validations(
    args: argparse.Namespace, settings: Settings, server: Server, fleet: list[Member], work: Path
) -> list[Validation]:
    folder = find_model(settings.model, source_options(settings))
    model = load_model(folder)
    data = data_folder(args.data)
    found = []
    for name in ("questions", "mix") if args.lengths == "questions" else (args.lengths,):
        texts = (questions(data) if name == "questions" else english_mix(data, cutter(folder.path))).texts
        lengths = np.array([len(ids) for ids in model.tokenizer.encode(texts, truncate=True).ids], np.int64)
        bodies = work / f"{name}.bodies"
        write_bodies(bodies, [server.spec.body(text) for text in texts])
        found.append(Validation(name, server, fleet, bodies, lengths, args.seconds, args.seed))
    return found


def _run(job: LoadJob) -> LoadResult:
    result = run_load(job)
    if result.errors:
        raise JobError(f"requests failed: {result.errors} {result.first_error}")
    return result


def table(found: list[Compared]) -> list[str]:
    lines = [
        "texts       load     req/s   p50 real   p50 sim     off   p95 real   p95 sim     off  "
        " wait real/sim  texts a batch"
    ]
    for row in found:
        real, sim = row.measured.latency, row.simulated
        lines.append(
            f"{row.texts:<10} {row.load:5.2f} {row.rate:9,.0f}  {1e3 * real.p50_s:9.2f} {1e3 * sim.p50_s:9.2f}  "
            f"{row.p50_off:+6.1%}  {1e3 * real.p95_s:9.2f} {1e3 * sim.p95_s:9.2f}  {row.p95_off:+6.1%}   "
            f"{1e3 * row.waits_s[0]:6.2f} {1e3 * row.waits_s[1]:6.2f}   "
            f"{row.batch_texts[0]:5.1f} {row.batch_texts[1]:5.1f}"
            f"   {'' if row.agrees else 'OFF'}"
        )
    return [*lines, f"agreement asked for: p50 within {P50_WITHIN:.0%}, p95 within {P95_WITHIN:.0%}; times in ms"]
