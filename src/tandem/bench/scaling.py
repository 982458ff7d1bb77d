"""Row E3 on the devices that are here: one server after the other over more and more of them, the same requests."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tandem.bench.load import LoadJob, LoadResult, run_load, write_bodies
from tandem.bench.processes import HOST, Server, tandem_server
from tandem.bench.texts import data_folder, questions
from tandem.devices import visible_gpus
from tandem.errors import JobError

REQUESTS = 10_000
CONNECTIONS = 64
COUNTS = (1, 2, 4)
# The document's own table: requests a second, speed-up, utilisation.
DOCUMENT: Mapping[int, tuple[int, float, float]] = {1: (1200, 1.0, 0.85), 2: (2100, 1.75, 0.78), 4: (3800, 3.17, 0.72)}


class RealRun(msgspec.Struct, frozen=True):
    """``devices`` as ``--device`` names them; ``count``, how many that are, workers that share one counted each.
    ``slots_busy``: batches under way, on average."""

    devices: str
    count: int
    result: LoadResult
    slots_busy: float


class RealOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, and what to ask it."""

    model: str
    precision: str
    threads: int
    data: str | None
    requests: int = REQUESTS


def devices_here() -> list[tuple[str, int]]:
    """What ``--device`` is to be, and the number of workers: the CPU as one and as two, and 1, 2 and 4 GPUs as far as
    there are so many."""
    gpus = visible_gpus()
    found = [("cpu", 1), ("cpu*2", 2)]
    return found + [("cuda:" + ",".join(map(str, gpus[:count])), count) for count in COUNTS if len(gpus) >= count]


def measure_scaling(options: RealOptions, devices: Sequence[tuple[str, int]]) -> list[RealRun]:
    """A closed loop of questions on each. Raises JobError when a server or a request fails."""
    asked = questions(data_folder(options.data))
    found = []
    with tempfile.TemporaryDirectory() as work:
        bodies = Path(work) / "questions.bodies"
        for device, count in devices:
            spec = tandem_server(options.model, options.precision, options.threads, {"device": device})
            with Server(spec, Path(work) / "server.log") as server:
                write_bodies(bodies, [spec.body(text) for text in asked.texts])
                found.append(_measure(server, bodies, device, count, options.requests))
    return found


def _measure(server: Server, bodies: Path, device: str, count: int, requests: int) -> RealRun:
    job = LoadJob(
        host=HOST,
        port=server.port,
        path=server.spec.path,
        bodies=str(bodies),
        connections=CONNECTIONS,
        requests=max(1, requests // 10),
    )
    run_load(job)
    before_s = _busy_s(server)
    result = run_load(msgspec.structs.replace(job, requests=requests))
    if result.errors or not result.ok:
        raise JobError(f"requests failed on {device}: {result.errors} {result.first_error}")
    return RealRun(device, count, result, (_busy_s(server) - before_s) / result.seconds)


def _busy_s(server: Server) -> float:
    lines = server.get("/metrics").decode().splitlines()
    sums = (line for line in lines if line.startswith("tandem_batch_duration_seconds_sum"))
    return sum(float(line.rpartition(" ")[2]) for line in sums)
