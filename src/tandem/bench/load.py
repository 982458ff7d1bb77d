"""Load over HTTP from a second process: what to send, what came back, and the limits that keep it a benchmark.

The generator itself is ``load_worker``. It runs as a child, so that the server never shares an interpreter with its
load, and as they do share the cores, the child's own CPU time is part of the result.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from tandem.errors import ConfigError, JobError

MAX_SECONDS = 3600.0
MAX_REQUESTS = 5_000_000
MAX_CONNECTIONS = 1024
GRACE_S = 120.0
"""How long after its own end a run may wait for outstanding answers before it is given up."""


class Loop(StrEnum):
    """``CLOSED``: each connection sends when its last answer is in. ``OPEN``: arrivals do not wait for anybody."""

    CLOSED = "closed"
    OPEN = "open"


class LoadJob(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``bodies`` is a file of JSON bodies, one a line, sent in turn and from the start again.

    It ends after ``requests`` requests or ``seconds``, whichever is first. ``rate`` (requests a second) is for the open
    loop, whose gaps are exponential (Poisson arrivals), drawn from ``seed``. The first answer to each body is written
    to ``keep``, one JSON object a line, if given; and to ``late``, in numpy's format, by how many seconds each request
    was sent after its time.
    """

    host: str
    port: int
    path: str
    bodies: str
    connections: int
    loop: Loop = Loop.CLOSED
    seconds: float = MAX_SECONDS
    requests: int = MAX_REQUESTS
    rate: float = 0.0
    seed: int = 0
    keep: str | None = None
    late: str | None = None


class Latency(msgspec.Struct, frozen=True):
    """Seconds from the intended send time to the last byte of the answer; exact quantiles, nothing is binned.

    All zeros when no good answer came back, which ``LoadResult.errors`` then says.
    """

    mean_s: float
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    max_s: float


class LoadResult(msgspec.Struct, frozen=True):
    """``seconds`` from the first intended send to the last answer. ``late_p99_s``: how far the generator itself lagged.

    ``errors`` counts by status or kind of failure; ``first_error`` is the start of the first such answer.
    """

    ok: int
    errors: dict[str, int]
    first_error: str
    seconds: float
    latency: Latency
    late_p99_s: float
    client_cpu_s: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.ok / self.seconds if self.seconds else 0.0


def check(job: LoadJob) -> None:
    """Raises ConfigError for a job that is not bounded, or that goes to another machine than this one."""
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(job.host, job.port)}
    except OSError as error:
        raise ConfigError(f"{job.host}: {error}") from error
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise ConfigError(f"load goes to this machine only, and {job.host} is not a loopback address")
    bounds = (
        ("seconds", job.seconds, MAX_SECONDS),
        ("requests", job.requests, MAX_REQUESTS),
        ("connections", job.connections, MAX_CONNECTIONS),
    )
    for name, value, limit in bounds:
        if not 0 < value <= limit:
            raise ConfigError(f"{name} must be over 0 and at most {limit:g}, got {value:g}")
    if job.loop is Loop.OPEN and not 0 < job.rate * min(job.seconds, MAX_SECONDS) <= MAX_REQUESTS:
        raise ConfigError(f"an open loop needs a rate over 0 that stays under {MAX_REQUESTS} requests, got {job.rate}")


def write_bodies(path: Path, bodies: Sequence[object]) -> None:
    """Encode each body once, one a line, for ``LoadJob.bodies``."""
    path.write_bytes(b"".join(msgspec.json.encode(body) + b"\n" for body in bodies))


def run_load(job: LoadJob) -> LoadResult:
    """Run ``job`` in a child process. Raises ConfigError for a refused job, JobError when the child fails."""
    check(job)
    done = subprocess.run(
        [sys.executable, "-m", "tandem.bench.load_worker"],
        input=msgspec.json.encode(job),
        capture_output=True,
        check=False,
        timeout=job.seconds + 2 * GRACE_S,
    )
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise JobError(f"the load generator failed: {' '.join(tail)}")
    return msgspec.json.decode(done.stdout, type=LoadResult)
