"""One way of allocating in a process of its own, which nothing else has allocated in: the child of ``bench/memory``.

Reads a job, answers with what the trace's first replay held, then replays it once for each line that names a mode.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from tandem.bench.memory_trace import GIVE, Trace
from tandem.bench.memory_ways import WAYS, Way
from tandem.errors import ConfigError
from tandem.memory import PoolStatistics

TAKES = 10_000
"""At least so many are timed in a turn."""


class WayJob(msgspec.Struct, frozen=True):
    """``way`` as in ``WAYS``; ``budget_bytes`` of a pool."""

    way: str
    trace: Trace
    budget_bytes: int


class Footing(msgspec.Struct, frozen=True):
    """What a replay had from the system over what it asked for, at the peak and on average over all takes. ``error``:
    why this way can not be had here. The times are of each take alone, in seconds, a clock's reading included."""

    error: str = ""
    live_peak_bytes: int = 0
    held_peak_bytes: int = 0
    live_mean_bytes: float = 0.0
    held_mean_bytes: float = 0.0
    take_p50_s: float = 0.0
    take_p99_s: float = 0.0
    statistics: PoolStatistics | None = None

    @property
    def fragmentation(self) -> float:
        """The share of what is held at the peak that nobody asked for."""
        return max(0.0, 1 - self.live_peak_bytes / max(1, self.held_peak_bytes))

    @property
    def mean_fragmentation(self) -> float:
        return max(0.0, 1 - self.live_mean_bytes / max(1.0, self.held_mean_bytes))


class Turn(msgspec.Struct, frozen=True):
    """Timed replays: seconds for each take with its give, the loop around them taken off."""

    pair_s: float


def footing(trace: Trace, way: Way) -> Footing:
    """Replay the trace once on a way just made, filling every buffer and looking at the process after each take."""
    live = np.array(trace.live_bytes())
    seen: list[int] = []
    times: list[float] = []
    # What a pool took when it was made counts as held.
    base = way.held() - (way.statistics().reserved_bytes if way.statistics else 0)

    def watched(nbytes: int) -> Any:
        buffer = way.take(nbytes)
        way.fill(buffer)
        seen.append(way.held() - base)
        return buffer

    def timed(nbytes: int) -> Any:
        started = time.perf_counter()
        buffer = way.take(nbytes)
        times.append(time.perf_counter() - started)
        return buffer

    replay(trace, watched, way.give)
    replay(trace, timed, way.give)
    p50, p99 = np.quantile(times, (0.5, 0.99)).tolist()
    return Footing(
        live_peak_bytes=int(live.max()),
        held_peak_bytes=max(seen),
        live_mean_bytes=float(live.mean()),
        held_mean_bytes=float(np.mean(seen)),
        take_p50_s=p50,
        take_p99_s=p99,
        statistics=way.statistics() if way.statistics else None,
    )


def turn(trace: Trace, way: Way, *, fill: bool) -> Turn:
    """Replay the trace against the clock."""

    def filled(nbytes: int) -> Any:
        buffer = way.take(nbytes)
        way.fill(buffer)
        return buffer

    # Short traces would leave the loop's own time, which is taken off, larger than the rest.
    repeats = -(-TAKES // trace.takes)
    spent_s = 0.0
    for _ in range(repeats):
        way.reset()
        spent_s += replay(trace, filled if fill else way.take, way.give) - replay(trace, int, id)
    return Turn(spent_s / trace.takes / repeats)


def replay(trace: Trace, take: Callable[[int], Any], give: Callable[[Any], object]) -> float:
    """Every event of the trace in its order; seconds."""
    held: list[Any] = [None] * (len(trace.events) + 1)
    started = time.perf_counter()
    for buffer, nbytes in trace.events:
        if nbytes == GIVE:
            give(held[buffer])
            held[buffer] = None
        else:
            held[buffer] = take(nbytes)
    return time.perf_counter() - started


def main() -> int:
    """Serve the parent until its end of the pipe is closed."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=WayJob)
    try:
        way = WAYS.get(job.way)(job.budget_bytes)
    except (ConfigError, ImportError) as error:
        _answer(Footing(error=str(error)))
        return 0
    _answer(footing(job.trace, way))
    for line in sys.stdin.buffer:
        _answer(turn(job.trace, way, fill=line.strip() == b"fill"))
    return 0


def _answer(found: Footing | Turn) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
