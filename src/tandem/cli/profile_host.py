"""What the server spends beside the model: its own CPU time under a closed loop of one caller and of many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tandem.bench.load import LoadJob, LoadResult, run_load, write_bodies
from tandem.bench.processes import HOST, Server, tandem_server
from tandem.bench.texts import cutter, english_mix, questions
from tandem.config import Settings
from tandem.errors import JobError
from tandem.models.loaded import LoadedModel
from tandem.simulation.base import Workload
from tandem.simulation.driver import Options, simulate
from tandem.simulation.fleet import Member
from tandem.simulation.profile import DeviceProfile, HostProfile, Shape

MANY = 32
CROWD = 64
_CROWD_REQUESTS, _HALVINGS, _ROUNDS = 2000, 10, 4
# A thread that wakes while all cores are busy, and may not go first, waits for the next tick: half of 4 ms on average,
# by the 250 Hz of most Linux distributions. It is not measured.
_WAKE_S = 0.002
# Of what a request costs the server's own thread, the part before the queue: reading, decoding, tokenizing. Measured
# once with a profiler; how it is split moves no figure by more than a few microseconds.
_BEFORE = 0.6


class Spent(msgspec.Struct, frozen=True):
    """One load: what the server's own threads spent a request, CPU seconds, and its batches a request."""

    host_s: float
    batches: float
    result: LoadResult


def start_server(settings: Settings, work: Path) -> Server:
    """A server that is not started yet: use it as a context manager."""
    # Most connections of an open loop are spares, and one that sends nothing for so long is answered 408.
    more = {"header_read_timeout_s": "3600", "keep_alive_timeout_s": "3600"}
    spec = tandem_server(settings.model, settings.precision, settings.threads, more)
    return Server(spec, work / "server.log")


def measure_host(
    settings: Settings, model: LoadedModel, profile: DeviceProfile, work: Path, seconds: float, data: Path | None
) -> HostProfile:
    """Loads on a server of its own. One caller: each request is a batch. Many: a batch serves many requests. What a
    request and what a batch costs follows from both; and what a token does, from one caller with longer texts. Then
    crowds, for what nothing else explains."""
    short, long = questions(data).texts, english_mix(data, cutter(model.folder.path)).texts
    with start_server(settings, work) as server:
        jobs = []
        for name, texts in (("short", short), ("long", long)):
            write_bodies(work / name, [server.spec.body(text) for text in texts])
            bodies = str(work / name)
            job = LoadJob(host=HOST, port=server.port, path=server.spec.path, bodies=bodies, connections=1)
            jobs.append(msgspec.structs.replace(job, seconds=seconds))
        spend(server, msgspec.structs.replace(jobs[0], seconds=seconds / 2, connections=MANY))  # to warm up
        alone = spend(server, jobs[0])
        many = spend(server, msgspec.structs.replace(jobs[0], connections=MANY))
        longer = spend(server, jobs[1])
        crowds = [_best(server, msgspec.structs.replace(job, connections=CROWD)) for job in jobs]
    few, more = (_mean_tokens(model, texts, each) for texts, each in ((short, alone), (long, longer)))
    token_s = max(0.0, (longer.host_s - alone.host_s) / max(1.0, more - few))
    host = host_profile(profile, alone, many, token_s, few)
    pairs = [(best, _lengths(model, texts)) for best, texts in ((crowds[0], short), (crowds[1], long))]
    return msgspec.structs.replace(host, drag=round(drag_of(profile, host, pairs), 4))


def drag_of(profile: DeviceProfile, host: HostProfile, crowds: Sequence[tuple[LoadResult, list[int]]]) -> float:
    """How much longer batches must take for the simulation to answer as many requests a second as the server did, in
    closed loops of ``CROWD`` callers over texts of those lengths: the mean over the loads, at least 1."""
    found = []
    for result, lengths in crowds:
        own = msgspec.structs.replace(host, client_s=result.client_cpu_s / result.ok)
        low, high = 1.0, 2.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            dragged = msgspec.structs.replace(own, drag=middle)
            faster = simulated_rate(profile, dragged, lengths) > result.rate
            low, high = (middle, high) if faster else (low, middle)
        found.append((low + high) / 2)
    return sum(found) / len(found)


def simulated_rate(profile: DeviceProfile, host: HostProfile, lengths: list[int]) -> float:
    """Requests a second in a closed loop of ``CROWD`` callers."""
    workload = Workload(np.zeros(_CROWD_REQUESTS), np.resize(lengths, _CROWD_REQUESTS), "a closed loop")
    fleet = [Member(profile.name, profile)]
    run = simulate(fleet, workload, Options(host=host, client=True, callers=CROWD, max_queue_s=0.0))
    return _CROWD_REQUESTS / run.ended_s


def host_profile(profile: DeviceProfile, alone: Spent, many: Spent, token_s: float, tokens: float) -> HostProfile:
    """What the loads come to; ``tokens``: of a text of the first two. What is left of a lone request's time, when all
    that is known is taken from it, goes to the hops between threads."""
    batch_s = max(0.0, (alone.host_s - many.host_s) / max(1e-9, alone.batches - many.batches))
    request_s = max(1e-6, alone.host_s - batch_s * alone.batches)
    client_s = alone.result.client_cpu_s / alone.result.ok
    rest_s = alone.result.latency.p50_s - request_s - batch_s - client_s - _question_s(profile)
    bare_s = max(1e-6, request_s - token_s * tokens)
    return HostProfile(
        request_s=round(_BEFORE * bare_s, 7),
        answer_s=round((1 - _BEFORE) * bare_s, 7),
        token_s=round(token_s, 9),
        batch_s=round(batch_s, 7),
        hand_s=round(max(0.0, rest_s), 7),
        wake_s=_WAKE_S,
        client_s=round(many.result.client_cpu_s / many.result.ok, 7),
    )


def spend(server: Server, job: LoadJob) -> Spent:
    """Run ``job`` and read what it cost the server's process, worker processes left out. Raises JobError when a
    request failed."""
    cpu_s, batches = own_cpu_s(server.pid), _batches(server)
    result = run_load(job)
    if result.errors or not result.ok:
        raise JobError(f"requests failed while the server was measured: {result.errors} {result.first_error}")
    return Spent((own_cpu_s(server.pid) - cpu_s) / result.ok, (_batches(server) - batches) / result.ok, result)


def own_cpu_s(pid: int) -> float:
    """CPU seconds of the server's own threads, in nanosecond steps: of all, where its workers are processes; of the
    main one alone, where they are threads beside it."""
    tasks = Path(f"/proc/{pid}/task")
    apart = any((task / "children").read_text().split() for task in tasks.iterdir())
    chosen = list(tasks.iterdir()) if apart else [tasks / str(pid)]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in chosen) / 1e9


def _batches(server: Server) -> float:
    return metric(server, "tandem_batch_texts_count")


def metric(server: Server, name: str) -> float:
    """The sum of a metric over its labels, 0 where it is not there yet."""
    lines = server.get("/metrics").decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)


def _best(server: Server, job: LoadJob) -> LoadResult:
    """Of several runs: others on the machine only ever take away."""
    return max((spend(server, job).result for _ in range(_ROUNDS)), key=lambda result: result.rate)


def _lengths(model: LoadedModel, texts: list[str]) -> list[int]:
    return [len(ids) for ids in model.tokenizer.encode(texts, truncate=True).ids]


def _mean_tokens(model: LoadedModel, texts: list[str], load: Spent) -> float:
    """Of the texts that a load asked for: in turn, and from the start again."""
    asked = texts[: load.result.ok]
    return sum(_lengths(model, asked)) / len(asked)


def _question_s(profile: DeviceProfile) -> float:
    """One question of 12 tokens in a row of 16, in the shape of the last."""
    return profile.seconds(Shape(16, 144, 1))
