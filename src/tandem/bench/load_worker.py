"""The load generator: callbacks on raw sockets, no coroutine and no parsing of bodies per request.

It shares two cores with the server it measures, so it does the least that is right: HTTP/1.1 keep-alive, requests
encoded before the clock starts, answers framed by Content-Length and kept as bytes. httpx spends 400 us a request,
which at 1,500 requests/s would be more than half a core.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from tandem.bench.load import GRACE_S, MAX_REQUESTS, Latency, LoadJob, LoadResult, Loop, check

now = time.perf_counter

Done = Callable[["Connection", int, bytes], None]
"""Called with the connection, the status (0: the connection was lost) and the body."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._buffer = bytearray()
        self._needed = 0
        self._status = 0
        self._transport: asyncio.Transport | None = None
        self.busy = False
        self.index = 0
        self.intended_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, as uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, index: int, intended_s: float) -> None:
        self.busy, self.index, self.intended_s = True, index, intended_s
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._status, length = read_head(bytes(self._buffer[: end + 2]))
            del self._buffer[: end + 4]
            self._needed = length + 1  # plus one, so that zero stays "no head yet" when a body is empty
        if len(self._buffer) >= self._needed - 1:
            body = bytes(self._buffer)
            self._buffer.clear()
            self._needed = 0
            self.busy = False
            self._done(self, self._status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.busy:
            self.busy = False
            self._done(self, 0, str(exc or "closed by the server").encode())

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def read_head(head: bytes) -> tuple[int, int]:
    """Status and body length of a response head. Raises ValueError for a body that is not framed by its length."""
    lines = head.split(b"\r\n")
    for line in lines[1:]:
        if line[:15].lower() == b"content-length:":
            return int(lines[0][9:12]), int(line[15:])
    raise ValueError("an answer without Content-Length can not be measured")


class Generator:
    """Sends the job's requests and keeps what came back."""

    def __init__(self, job: LoadJob) -> None:
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._requests = _requests(job)
        self._limit = min(job.requests, MAX_REQUESTS)
        self._sent = 0
        self._end_s = math.inf
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._arrivals = arrivals(job) if job.loop is Loop.OPEN else np.empty(0)
        self._arrived = 0
        self._finished = asyncio.Event()
        self._lost = 0
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.errors: Counter[str] = Counter()
        self.first_error = ""
        self.kept: dict[int, bytes] = {}
        self.started_s = 0.0
        self.last_s = 0.0

    async def run(self) -> None:
        """Open all connections, send, and wait for what is outstanding. Raises OSError when nobody listens."""
        connections = [await self._connect() for _ in range(self._job.connections)]
        cpu_before = time.process_time()
        self.started_s = self.last_s = now()
        if self._job.loop is Loop.OPEN:
            self._limit = len(self._arrivals)
            self._arrivals += self.started_s
            self._idle = deque(connections)
            self._arrive()
        else:
            self._end_s = self.started_s + self._job.seconds
            for connection in connections:
                self._next(connection)
        try:
            await asyncio.wait_for(self._finished.wait(), self._job.seconds + GRACE_S)
        except TimeoutError:
            self.errors["no answer"] += self._sent - len(self.latencies) - self.errors.total()
        self.cpu_s = time.process_time() - cpu_before
        for connection in connections:
            connection.close()

    def result(self) -> LoadResult:
        values = np.array(self.latencies or [0.0])
        p50, p90, p95, p99 = (float(q) for q in np.quantile(values, (0.5, 0.9, 0.95, 0.99)))
        return LoadResult(
            ok=len(self.latencies),
            errors=dict(self.errors),
            first_error=self.first_error,
            seconds=self.last_s - self.started_s,
            latency=Latency(float(values.mean()), p50, p90, p95, p99, float(values.max())),
            late_p99_s=float(np.quantile(self.late, 0.99)) if self.late else 0.0,
            client_cpu_s=self.cpu_s,
        )

    async def _connect(self) -> Connection:
        _, connection = await self._loop.create_connection(
            lambda: Connection(self._answered), self._job.host, self._job.port
        )
        return connection

    def _arrive(self) -> None:
        """Send what is due and sleep until the next arrival; late arrivals go out at once, at their intended time."""
        moment = now()
        while self._arrived < self._limit and self._arrivals[self._arrived] <= moment:
            self._waiting.append(float(self._arrivals[self._arrived]))
            self._arrived += 1
        while self._waiting and self._idle:
            # In turn: one that is left alone for long is closed by the server.
            self._send(self._idle.popleft(), self._waiting.popleft())
        if self._arrived < self._limit:
            self._loop.call_later(max(0.0, float(self._arrivals[self._arrived]) - now()), self._arrive)

    def _next(self, connection: Connection) -> None:
        moment = now()
        if self._sent < self._limit and moment < self._end_s:
            self._send(connection, moment)
        else:
            self._settle()

    def _send(self, connection: Connection, intended_s: float) -> None:
        index = self._sent % len(self._requests)
        self._sent += 1
        self.late.append(now() - intended_s)
        connection.send(self._requests[index], index, intended_s)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        self.last_s = now()
        if status == 200:
            self.latencies.append(self.last_s - connection.intended_s)
            if self._job.keep and connection.index not in self.kept:
                self.kept[connection.index] = body
        else:
            self.errors[str(status or "connection lost")] += 1
            self.first_error = self.first_error or body[:300].decode(errors="replace")
        if not connection.open:
            self._lose()
        elif self._job.loop is Loop.CLOSED:
            self._next(connection)
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)
            self._settle()

    def _lose(self) -> None:
        # Not opened again: a server that drops connections is a finding, and the run says so in its errors.
        self._lost += 1
        if self._lost == self._job.connections:
            self._finished.set()
        self._settle()

    def _settle(self) -> None:
        all_sent = self._sent >= self._limit or now() >= self._end_s
        if all_sent and len(self.latencies) + self.errors.total() >= self._sent:
            self._finished.set()


def _requests(job: LoadJob) -> list[bytes]:
    head = f"POST {job.path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\nContent-Type: application/json\r\n"
    bodies = Path(job.bodies).read_bytes().splitlines()
    if not bodies:
        raise ValueError(f"{job.bodies} holds no body")
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


def arrivals(job: LoadJob) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Poisson arrivals from the start: exponential gaps of mean 1/rate, up to the end of the run."""
    rng = np.random.default_rng(job.seed)
    count = min(job.requests, int(job.rate * job.seconds * 1.5) + 100)
    times = np.cumsum(rng.exponential(1 / job.rate, count))
    return times[times < job.seconds]


def _write_kept(path: Path, kept: dict[int, bytes]) -> None:
    lines = (msgspec.json.encode({"index": index, "body": msgspec.Raw(body)}) for index, body in sorted(kept.items()))
    path.write_bytes(b"".join(line + b"\n" for line in lines))


async def _run(job: LoadJob) -> LoadResult:
    generator = Generator(job)
    await generator.run()
    if job.keep:
        _write_kept(Path(job.keep), generator.kept)
    if job.late:
        np.save(job.late, np.array(generator.late))
    return generator.result()


def main() -> int:
    """Read a job from stdin, write the result to stdout."""
    import uvloop

    job = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadJob)
    check(job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_run(job))
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
