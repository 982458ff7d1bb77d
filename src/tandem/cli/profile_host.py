"""What the server spends beside the model: its own CPU time under a closed loop of one caller and of many."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tandem.bench.load import LoadJob, LoadResult, run_load, write_bodies
from tandem.bench.processes import HOST, Server, tandem_server
from tandem.bench.texts import data_folder, questions
from tandem.config import Settings
from tandem.errors import JobError
from tandem.simulation.profile import DeviceProfile, HostProfile, Shape

MANY = 32
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
    spec = tandem_server(settings.model, settings.precision, settings.threads)
    return Server(spec, work / "server.log")


def measure_host(
    settings: Settings, profile: DeviceProfile, work: Path, seconds: float, data: str | None
) -> HostProfile:
    """Two loads on a server of its own. One caller: each request is a batch. Many: a batch serves many requests. What
    a request and what a batch costs follows from both."""
    asked = questions(data_folder(data))
    bodies = work / "questions.bodies"
    with start_server(settings, work) as server:
        write_bodies(bodies, [server.spec.body(text) for text in asked.texts])
        job = LoadJob(host=HOST, port=server.port, path=server.spec.path, bodies=str(bodies), connections=1)
        spend(server, msgspec.structs.replace(job, seconds=seconds / 2, connections=MANY))  # to warm up
        alone = spend(server, msgspec.structs.replace(job, seconds=seconds))
        many = spend(server, msgspec.structs.replace(job, seconds=seconds, connections=MANY))
    return host_profile(profile, alone, many)


def host_profile(profile: DeviceProfile, alone: Spent, many: Spent) -> HostProfile:
    """What both loads come to. What is left of a lone request's time, when all that is known is taken from it, goes to
    the hops between threads."""
    batch_s = max(0.0, (alone.host_s - many.host_s) / max(1e-9, alone.batches - many.batches))
    request_s = max(1e-6, alone.host_s - batch_s * alone.batches)
    client_s = alone.result.client_cpu_s / alone.result.ok
    forward_s = _question_s(profile)
    rest_s = alone.result.latency.p50_s - request_s - batch_s - client_s - forward_s
    return HostProfile(
        request_s=round(_BEFORE * request_s, 7),
        answer_s=round((1 - _BEFORE) * request_s, 7),
        batch_s=round(batch_s, 7),
        hand_s=round(max(0.0, rest_s), 7),
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


def _question_s(profile: DeviceProfile) -> float:
    """One question of 12 tokens in a row of 16, in the shape of the last."""
    return profile.seconds(Shape(16, 144, 1))
