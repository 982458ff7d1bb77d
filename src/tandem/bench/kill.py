"""``kill -9`` of a worker under load, again and again: is anything lost, is anything wrong, how long is the gap?

Each answer of the load is kept and compared with what the same server said before the first kill. The gap is seen by a
second caller, who asks one question after the other: the longest time between two of its answers around a kill.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event

import msgspec

from tandem.bench.context import Context, kept_rows
from tandem.bench.load import LoadJob, Loop, run_load, write_bodies
from tandem.bench.processes import HOST, Server, tandem_server
from tandem.bench.report import Check, at_most, shown
from tandem.bench.stats import cosines, summarize

# Longer than a worker must serve for its next start to be immediate again (workers/ledger.py).
_EVERY_S = 6.5
_RATE = 100.0
_CONNECTIONS = 64
# A text's vector depends a little on its company, by the tier's arithmetic.
_SAME = 0.9999


def kill(context: Context) -> None:
    """With one worker, whose requests wait until it is back, and with two, of which the other goes on."""
    for devices in ("cpu", "cpu*2"):
        _kill(context, devices)


def _kill(context: Context, devices: str) -> None:
    options, report = context.options, context.report
    seconds = (options.kills + 1) * _EVERY_S
    spec = tandem_server(options.model, options.precision, options.threads, {"device": devices, "workers": "process"})
    bodies, calm, wild = (context.folder / name for name in ("kill.bodies", "kill.calm", "kill.wild"))
    asked = list(itertools.islice(itertools.cycle(context.questions.texts), int(seconds * _RATE)))
    write_bodies(bodies, [spec.body(f"{text} {number}") for number, text in enumerate(asked)])
    job = LoadJob(host=HOST, port=0, path=spec.path, bodies=str(bodies), connections=_CONNECTIONS, keep=str(calm))
    with context.start(spec) as server:
        before = msgspec.structs.replace(job, port=server.port, requests=len(asked))
        context.note_errors(f"{devices}, before", run_load(before))
        under_fire = msgspec.structs.replace(before, loop=Loop.OPEN, rate=_RATE, keep=str(wild))
        ended = Event()
        with ThreadPoolExecutor(2) as threads:
            load = threads.submit(run_load, under_fire)
            prober = threads.submit(_probe, server, ended)
            kills = _kill_workers(server, options.kills, Random(options.seed))
            result = load.result()
            ended.set()
            answers = prober.result()
    lost = len(asked) - result.ok
    worst = float(cosines(kept_rows(wild), kept_rows(calm)).min())
    report.checks.append(Check(f"{devices}: least cosine of an answer under fire to the same before", worst, _SAME))
    gaps = [_gap(answers, at) for at in kills]
    report.figures += [
        at_most(f"{devices}: requests lost of {len(asked):,}, {len(kills)} workers killed", 0, float(lost), "", 0),
        at_most(f"{devices}: longest gap after a kill", 2, max(gaps), " s"),
        shown(f"{devices}: gap after a kill", summarize(gaps), " s"),
        shown(f"{devices}: slowest answer of the load", result.latency.max_s, " s"),
    ]
    if lost:
        report.problems.append(f"{devices}: {lost} requests lost: {result.errors} {result.first_error}")


def _kill_workers(server: Server, kills: int, chance: Random) -> list[float]:
    """End a worker every ``_EVERY_S``; returns when, in seconds of the process' clock."""
    found = []
    for _ in range(kills):
        time.sleep(_EVERY_S)
        workers = [pid for pid in server.children() if b"tandem.workers" in _command(pid)]
        if workers:
            found.append(time.perf_counter())
            os.kill(chance.choice(workers), signal.SIGKILL)
    time.sleep(_EVERY_S)
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _probe(server: Server, ended: Event) -> list[float]:
    """Ask one question after the other; when each was answered."""
    answers = []
    while not ended.is_set():
        server.post(server.spec.body("is anybody there?"))
        answers.append(time.perf_counter())
        # Ten a second show a gap well enough, and take little from the load.
        ended.wait(0.1)
    return answers


def _gap(answers: list[float], at: float) -> float:
    """The longest time between two answers, from the last before the kill to the first after the next."""
    first = bisect_left(answers, at)
    last = bisect_left(answers, at + _EVERY_S)
    around = answers[max(0, first - 1) : last + 1]
    return max((later - earlier for earlier, later in itertools.pairwise(around)), default=_EVERY_S)
