"""``tandem simulate --validate``: the real server on this machine, and the same arrivals simulated beside it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.load import LoadJob, LoadResult, Loop, run_load, write_bodies
from tandem.bench.load_worker import arrivals
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
from tandem.simulation.result import summarise

LOADS = (0.3, 0.5, 0.8)
P50_WITHIN, P95_WITHIN = 0.10, 0.15
CONNECTIONS = 256
TRIES, QUIET = 5, 0.03
_CLOSED = 64
_OFF = 1


class Figures(msgspec.Struct, frozen=True):
    """Of one run: seconds, ``wait_s`` the mean in the queue; ``batch_texts``: texts in a batch."""

    p50_s: float
    p95_s: float
    wait_s: float
    batch_texts: float


class Round(msgspec.Struct, frozen=True):
    """One load on the server and the same requests simulated. ``others``: the share of the cores that other processes
    took meanwhile."""

    measured: Figures
    simulated: Figures
    others: float


class Compared(msgspec.Struct, frozen=True):
    """All rounds at one load; what is compared are the medians over them."""

    texts: str
    load: float
    rate: float
    rounds: tuple[Round, ...]

    def measured(self, name: str) -> float:
        return float(median(getattr(each.measured, name) for each in self.rounds))

    def simulated(self, name: str) -> float:
        return float(median(getattr(each.simulated, name) for each in self.rounds))

    def off(self, name: str) -> float:
        """By how much the simulation is over, as a share."""
        return self.simulated(name) / self.measured(name) - 1

    @property
    def others(self) -> float:
        return max(each.others for each in self.rounds)

    @property
    def agrees(self) -> bool:
        return abs(self.off("p50_s")) <= P50_WITHIN and abs(self.off("p95_s")) <= P95_WITHIN


class _Counts(msgspec.Struct, frozen=True):
    """Of the server so far: seconds in the queue and requests that were there; texts and batches."""

    queued_s: float
    queued: float
    texts: float
    batches: float


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
        """Requests a second in a closed loop, the load generator beside it: the 100 % of the loads. The best of several
        runs, as others on the machine only ever take away."""
        job = msgspec.structs.replace(self._job(), loop=Loop.CLOSED, connections=_CLOSED, seconds=self.seconds / 2)
        return max(_run(job).rate for _ in range(TRIES))

    def compare(self, load: float, rate: float, rounds: int) -> Compared:
        found: list[Round] = []
        for index in range(rounds):
            job = msgspec.structs.replace(self._job(), rate=rate, seed=self.seed + index)
            # What others take of the cores is not simulated, so a run of which they took much is made again.
            tries: list[Round] = []
            while len(tries) < TRIES and (not tries or tries[-1].others > QUIET):
                tries.append(self._round(job))
            found.append(min(tries, key=lambda each: each.others))
        return Compared(self.texts, load, rate, tuple(found))

    def _round(self, job: LoadJob) -> Round:
        neighbours, server_s, before = Neighbours(), self.server.cpu_s(), self._counts()
        result = _run(job)
        server_share = (self.server.cpu_s() - server_s) / (result.seconds * (os.cpu_count() or 1))
        after = self._counts()
        queued_s, queued, texts, batches = (
            b - a for a, b in zip(msgspec.structs.astuple(before), msgspec.structs.astuple(after), strict=True)
        )
        latency = result.latency
        measured = Figures(latency.p50_s, latency.p95_s, queued_s / max(1, queued), texts / max(1, batches))
        return Round(measured, self._simulate(job, result), max(0.0, neighbours.share() - server_share))

    def _job(self) -> LoadJob:
        return LoadJob(
            host=HOST,
            port=self.server.port,
            path=self.server.spec.path,
            bodies=str(self.bodies),
            connections=CONNECTIONS,
            loop=Loop.OPEN,
            seconds=self.seconds,
            late=str(self._late),
            rate=1.0,
            seed=self.seed,
        )

    def _simulate(self, job: LoadJob, result: LoadResult) -> Figures:
        """The same requests, sent when they were sent. The load generator is not what is simulated: by how much it was
        late, and what it costs on the shared cores, are taken from the run. Latencies are from the intended times, as
        the measured ones."""
        times_s = arrivals(job)
        intended = Workload(times_s, np.resize(self.lengths, len(times_s)), self.texts)
        sent = msgspec.structs.replace(intended, times_s=times_s + np.load(self._late))
        host = self.fleet[0].profile.host
        assert host is not None
        host = msgspec.structs.replace(host, client_s=result.client_cpu_s / result.ok)
        run = simulate(self.fleet, sent, Options(host=host, client=True, seed=job.seed))
        found = summarise(run, self.fleet, intended, 0.1)
        batches = sum(use.batches for use in found.devices)
        return Figures(found.p50_s, found.p95_s, found.wait_s, len(intended) / batches)

    @property
    def _late(self) -> Path:
        return self.bodies.with_suffix(".npy")

    def _counts(self) -> _Counts:
        text = self.server.get("/metrics").decode()
        queue = [line for line in text.splitlines() if line.startswith("tandem_stage_duration") and '"queue"' in line]
        return _Counts(
            queued_s=sum(float(line.rpartition(" ")[2]) for line in queue if "_sum" in line),
            queued=sum(float(line.rpartition(" ")[2]) for line in queue if "_count" in line),
            texts=metric(self.server, "tandem_batch_texts_sum"),
            batches=metric(self.server, "tandem_batch_texts_count"),
        )


def run_validate(args: argparse.Namespace) -> int:
    """Measure, simulate, compare; 1 when a load is off by more than the bounds. Raises ConfigError, JobError."""
    fleet = parse_fleet((args.devices or ["cpu"])[0], args.model)
    if len(fleet) != 1 or fleet[0].profile.host is None or not fleet[0].profile.measured:
        raise ConfigError("--validate needs one device, by a profile that was measured on this machine with its server")
    settings = Settings(model=args.serve or DEFAULT_MODEL, threads=fleet[0].profile.cores)
    loads = tuple(float(part) for part in args.load.split(",") if part) or LOADS
    before = conditions({})
    print("\n".join(("# tandem simulate --validate", *before.lines(), f"profile   {fleet[0].profile.source}")))
    found: list[Compared] = []
    with tempfile.TemporaryDirectory() as work, start_server(settings, Path(work)) as server:
        for validation in _validations(args, settings, server, fleet, Path(work)):
            capacity = validation.capacity()
            print(f"{validation.texts}: {capacity:,.0f} requests/s in a closed loop of {_CLOSED}", file=sys.stderr)
            found += [validation.compare(load, load * capacity, args.rounds) for load in loads]
    print()
    print("\n".join(table(found)))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / "validate.json"
        content = {"conditions": before, "rows": found}
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
        " wait real/sim  texts a batch  others"
    ]
    for row in found:
        cells = [f"{row.texts:<10} {row.load:5.2f} {row.rate:9,.0f}"]
        for name in ("p50_s", "p95_s"):
            real, simulated = 1e3 * row.measured(name), 1e3 * row.simulated(name)
            cells.append(f"{real:9.2f} {simulated:9.2f}  {row.off(name):+6.1%}")
        cells.append(f" {1e3 * row.measured('wait_s'):6.2f} {1e3 * row.simulated('wait_s'):6.2f}")
        cells.append(f" {row.measured('batch_texts'):5.1f} {row.simulated('batch_texts'):5.1f}   {row.others:5.0%}")
        lines.append("  ".join([*cells, "" if row.agrees else "OFF"]).rstrip())
    return [*lines, f"agreement asked for: p50 within {P50_WITHIN:.0%}, p95 within {P95_WITHIN:.0%}; times in ms"]
