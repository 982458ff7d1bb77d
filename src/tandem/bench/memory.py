"""``tandem bench memory``: one recorded trace of a serving run through every way of allocating there is here.

Each way runs in a process of its own, so that what it holds is its own doing; rounds are interleaved. Row B1 of the
document that Tandem follows asks for 60 to 80 % less fragmentation and allocation 3 to 5 times as fast, and names no
baseline: so each baseline has its line, and some of them are not beaten.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from types import TracebackType

import msgspec

from tandem.backends.child_process import command, environment
from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.memory_peaks import PeaksJob, peaks
from tandem.bench.memory_trace import Trace, record, requests_of
from tandem.bench.memory_ways import WAYS, pool_of
from tandem.bench.memory_worker import Footing, Turn, WayJob, replay
from tandem.bench.options import BenchOptions
from tandem.bench.report import Figure, Met, Report, Series, at_least, at_most, missing, shown
from tandem.bench.stats import interleave, paired_ratio, summarize
from tandem.bench.texts import cutter, english_mix, questions
from tandem.clock import SystemClock
from tandem.config import Settings, source_options
from tandem.errors import JobError, MemoryExhausted
from tandem.memory import Pool, PoolOptions, StoreOptions
from tandem.memory.stores import HostStore
from tandem.models.loaded import load_model
from tandem.models.resolve import find_model
from tandem.types import Tier

REQUESTS = 3000
STEADY_REQUESTS = 100_000
FASTER, LESS = 3.0, 0.6
# Each pool with what it stands in for.
PAIRS = {
    "tandem pool, arrays": ("numpy.empty (malloc)",),
    "tandem pool, host": ("torch on the CPU (malloc)", "mmap each time"),
    "tandem pool, shared": ("memfd each time",),
    "tandem pool, device": ("cudaMalloc each time", "torch on CUDA, cold", "torch on CUDA, warm"),
    "tandem pool, pinned": ("torch pinned, warm",),
}
PEAK_BACKENDS = (
    ("openvino", Tier.FP32),
    ("openvino", Tier.BF16),
    ("onnxruntime", Tier.FP32),
    ("torch", Tier.FP32),
    ("torch", Tier.BF16),
)
# As a GPU's, so that buffers are large.
BATCH_TOKENS = 16_384
# Of the least budget: what a service that knows its traffic would take.
ROOM = 1.25
# A pool ends a replay with its small blocks elsewhere than it began.
ROUNDS_CARRIED = 5


def memory(options: BenchOptions) -> Report:
    """Run it. Raises ModelError, ConfigError, and JobError when a child breaks."""
    settings = Settings(cache="off", model=options.model, max_batch_tokens=BATCH_TOKENS)
    model = load_model(find_model(settings.model, source_options(settings)))
    mix = english_mix(options.data, cutter(model.folder.path), options.texts)
    short = questions(options.data, options.texts)
    encode = partial(model.tokenizer.encode, truncate=True)
    requests = requests_of(encode(mix.texts).ids, encode(short.texts).ids, REQUESTS, options.seed)
    trace = record(settings, model, requests, model.description.dims)
    workload = {
        "trace": f"{trace.requests:,} requests in {trace.batches:,} batches, {trace.takes:,} buffers, "
        f"{max(trace.live_bytes()):,} bytes live at most",
        "texts": f"{mix.source}; {short.source}",
        "rounds": f"{options.rounds} counted, 1 warm-up, interleaved; seed {options.seed}",
    }
    budget_bytes = least_budget(trace)
    report = Report("tandem bench memory", conditions(workload))
    neighbours = Neighbours()
    with ExitStack() as stack:
        children = {name: stack.enter_context(Child(WayJob(name, trace, budget_bytes))) for name in WAYS}
        absent = {name: child.footing.error for name, child in children.items() if child.footing.error}
        here = {name: child for name, child in children.items() if name not in absent}
        plain = interleave({name: partial(child.seconds, "take") for name, child in here.items()}, options.rounds)
        filled = interleave({name: partial(child.seconds, "fill") for name, child in here.items()}, options.rounds)
        footings = {name: child.footing for name, child in here.items()}
    for kind, taken in (("take and give", plain), ("take, fill and give", filled)):
        for name, seconds in taken.items():
            report.series.append(Series(name, f"microseconds to {kind}", summarize([s * 1e6 for s in seconds])))
    report.figures += report_on(plain, filled, footings, absent)
    report.details["ways"] = footings
    _steady(report, trace, budget_bytes)
    _peaks(report, options)
    report.busy_by_others = neighbours.share()
    return report


class Child:
    """One way of allocating in its process, which has replayed the trace once; a context manager that ends it."""

    def __init__(self, job: WayJob) -> None:
        self._way = job.way
        more = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if job.way.startswith("cudaMalloc") else {}
        self._process = subprocess.Popen(
            command("tandem.bench.memory_worker"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(more)
        )
        self._say(msgspec.json.encode(job))
        self.footing = msgspec.json.decode(self._hear(), type=Footing)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def seconds(self, mode: str) -> float:
        """A take with its give, in one more replay; ``mode`` is ``take``, or ``fill`` where buffers are written too."""
        self._say(mode.encode())
        return msgspec.json.decode(self._hear(), type=Turn).pair_s

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise JobError(f"the process of {self._way!r} ended with exit code {self._process.wait()}")
        return line


def report_on(
    plain: dict[str, list[float]],
    filled: dict[str, list[float]],
    footings: dict[str, Footing],
    absent: dict[str, str],
) -> Iterator[Figure]:
    """Each pool against each baseline: in time, with and without writing to the memory, and in fragmentation.

    ``absent``: ways that are not to be had here, and why.
    """
    for kind, taken in (("take and give", plain), ("take, fill and give", filled)):
        for ours, theirs in _pairs():
            name = f"{kind}: {ours} against {theirs}"
            if reason := absent.get(ours) or absent.get(theirs):
                yield missing(name, f">= {FASTER:g}x", reason)
            else:
                yield at_least(name, FASTER, paired_ratio(taken[theirs], taken[ours]), "x")
    for name, footing in footings.items():
        text = f"{footing.fragmentation:.1%} at the peak, {footing.mean_fragmentation:.1%} on average"
        yield Figure(f"fragmentation, {name}", "", text, Met.INFO)
    for ours, theirs in _pairs():
        name = f"fragmentation at the peak: {ours} against {theirs}"
        if reason := absent.get(ours) or absent.get(theirs):
            yield missing(name, f"-{LESS:.0%}", reason)
        else:
            less = 1 - footings[ours].fragmentation / max(1e-9, footings[theirs].fragmentation)
            yield Figure(name, f"-{LESS:.0%}", f"{-less:+.0%}", Met.YES if less >= LESS else Met.NO)


def least_budget(trace: Trace) -> int:
    """The least budget that carries the trace over and over, by bisection to 1 %."""
    low = max(trace.live_bytes())
    high = 4 * low
    while high - low > low // 100:
        middle = (low + high) // 2
        low, high = (low, middle) if _carries(trace, middle) else (middle, high)
    return high


def _steady(report: Report, trace: Trace, budget_bytes: int) -> None:
    """A pool that takes a little more than the least budget, over many requests."""
    pool = pool_of("host", int(ROOM * budget_bytes))
    for _ in range(-(-STEADY_REQUESTS // trace.requests)):
        replay(trace, pool.take, pool.give)
    pool.check()
    stats = pool.statistics()
    add = report.figures.append
    add(shown("least budget that carries the trace, of its live peak", budget_bytes / max(trace.live_bytes()), "x"))
    asked = stats.store_allocations - 1
    add(at_most(f"store asked for memory in {STEADY_REQUESTS:,} requests, after the start", 0, asked, "", 0))
    add(shown("a take, by the pool's own count, p50", stats.take_p50_s * 1e6, " us"))
    add(shown("a take, by the pool's own count, p99", stats.take_p99_s * 1e6, " us"))
    add(shown("takes that had to merge what was kept", 100 * stats.misses / stats.takes, " %", 3))
    report.details["pool, steady"] = stats


def _carries(trace: Trace, budget_bytes: int) -> bool:
    pool = Pool(HostStore(StoreOptions(populate=False)), PoolOptions(budget_bytes=budget_bytes), SystemClock())
    try:
        for _ in range(ROUNDS_CARRIED):
            replay(trace, pool.take, pool.give)
    except MemoryExhausted:
        return False
    return True


def _peaks(report: Report, options: BenchOptions) -> None:
    """What the estimate predicts for batches that it was not fitted on."""
    for backend, tier in PEAK_BACKENDS:
        if backend == "torch" and find_spec("torch") is None:
            continue
        found = peaks(PeaksJob(options.model, backend, tier, options.threads))
        name = f"worst error of a predicted peak, {backend} {tier} ({found.counted})"
        report.details[name] = found
        if found.predicted:
            worst = max(abs(peak.error) for peak in found.predicted)
            report.figures.append(at_most(name, 10, 100 * worst, " %"))
            before = max(abs(peak.error) for peak in found.guessed)
            report.figures.append(shown(f"{name}, before it is fitted", 100 * before, " %"))
        else:
            report.figures.append(missing(name, "<= 10 %", "this system does not tell a process its peak"))


def _pairs() -> Iterator[tuple[str, str]]:
    return ((ours, theirs) for ours, others in PAIRS.items() for theirs in others)
