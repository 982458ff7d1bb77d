"""A device's profile, measured: its backend runs batches as the scheduler cuts them, alone and in all slots at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeAlias

import msgspec
import numpy as np

from tandem.backends.base import Backend
from tandem.batching.base import BatchLimits
from tandem.batching.packing import arrange, fill
from tandem.batching.shapes import round_width
from tandem.simulation.fit import Fitted, Timed, fit
from tandem.simulation.lengths import TABLES
from tandem.simulation.profile import Shape
from tandem.types import Packing, TokenBatch

_PASSES = 3

Spent: TypeAlias = Callable[[], float]
"""Seconds spent so far, summed over the slots that run: for a CPU whose streams have a thread each, the process's CPU
time, which says the same as the clock on an idle machine and is not misled by a busy one."""


class Measured(msgspec.Struct, frozen=True):
    """``speeds[k - 1]``: the speed of each of k slots that run at once, relative to one that runs alone."""

    fitted: Fitted
    speeds: tuple[float, ...]
    batches: int


def grid(limits: BatchLimits, count: int, seed: int) -> list[list[int]]:
    """The lengths of ``count`` batches: questions, mixed texts and texts of one length, from one text to a full batch.
    Sizes are even on a log scale, as small batches are what a server with room runs."""
    rng = np.random.default_rng(seed)
    batches = []
    for index in range(count):
        most = int(np.exp(rng.uniform(np.log(8), np.log(limits.max_tokens))))
        if index % 5 == 4:
            each = int(np.exp(rng.uniform(np.log(4), np.log(min(limits.max_width, limits.max_tokens)))))
            lengths = [each] * max(1, most // each)
        else:
            table = TABLES["questions" if index % 2 else "mix"]
            drawn = np.interp(rng.random(256), np.linspace(0, 1, len(table)), table).round().astype(int)
            drawn = drawn.clip(max=limits.max_width)
            lengths = drawn[: max(1, int(np.searchsorted(drawn.cumsum(), most, side="right")))].tolist()
        batches.append(sorted(lengths))
    return batches


def token_batch(lengths: Sequence[int], limits: BatchLimits, token_id: int) -> TokenBatch:
    """Texts of one token over and over: which tokens they are costs nothing."""
    width = round_width(max(lengths), limits.max_width)
    layout = arrange(lengths, limits.packing, width, limits.max_width)
    return TokenBatch(
        ids=fill(layout, ([token_id] * length for length in lengths), token_id),
        lengths=np.array(lengths, np.int32),
        places=None if limits.packing is Packing.ONE_A_ROW else np.array(layout.starts, np.int32),
    )


class Meter(msgspec.Struct, frozen=True):
    """``spent`` as above; ``rest`` lets a few milliseconds pass, in which caches go cold."""

    spent: Spent
    rest: Callable[[], None]


def measure(backend: Backend, limits: BatchLimits, meter: Meter, *, count: int, seed: int, token_id: int) -> Measured:
    """Run ``count`` batches: alone, each twice in a row, without and with a rest before each, then in 2, 3, ... slots
    at once. Each pass is run ``_PASSES`` times and the cheapest counts: what other processes take of the machine is no
    cost of the device's."""
    batches = [token_batch(lengths, limits, token_id) for lengths in grid(limits, count, seed)]
    rng = np.random.default_rng([seed, 1])
    with ThreadPoolExecutor(backend.streams) as threads:
        bench = _Bench(backend, meter, threads)
        bench.together(batches, backend.streams)  # kernels for all shapes, on all slots
        order = [batches[i] for i in rng.permutation(len(batches)) for _ in range(2)]
        alone = [
            timed
            for idle in (False, True)
            for timed in min((bench.alone(order, idle) for _ in range(_PASSES)), key=_total)
        ]
        fitted = fit(alone)
        speeds = [1.0]
        for slots in range(2, backend.streams + 1):
            order = [batches[i] for i in rng.permutation(len(batches))]
            seconds = min(bench.together(order, slots) for _ in range(_PASSES))
            expected = slots * sum(_predicted(fitted, Timed(shape_of(batch), True, 0.0)) for batch in order)
            speeds.append(round(min(1.0, expected / seconds), 4))
    return Measured(fitted, tuple(speeds), len(batches))


class _Bench:
    def __init__(self, backend: Backend, meter: Meter, threads: ThreadPoolExecutor) -> None:
        self._backend = backend
        self._spent = meter.spent
        self._rest = meter.rest
        self._threads = threads

    def alone(self, batches: Sequence[TokenBatch], idle: bool) -> list[Timed]:
        return self._threads.submit(self._timed, batches, idle).result()

    def together(self, batches: Sequence[TokenBatch], slots: int) -> float:
        """All of them on each of ``slots`` threads, each thread from another place on; what that took in all."""
        barrier = Barrier(slots + 1)
        step = len(batches) // slots
        orders = [[*batches[slot * step :], *batches[: slot * step]] for slot in range(slots)]
        runs = [self._threads.submit(self._run, order, barrier) for order in orders]
        barrier.wait()
        before_s = self._spent()
        for run in runs:
            run.result()
        return self._spent() - before_s

    def _timed(self, batches: Sequence[TokenBatch], idle: bool) -> list[Timed]:
        found, last = [], None
        for batch in batches:
            if idle:
                self._rest()
            before_s = self._spent()
            self._backend.run(batch)
            found.append(Timed(shape_of(batch), idle or batch.ids.shape != last, self._spent() - before_s))
            last = batch.ids.shape
        return found

    def _run(self, batches: Sequence[TokenBatch], barrier: Barrier) -> None:
        barrier.wait()
        for batch in batches:
            self._backend.run(batch)


def shape_of(batch: TokenBatch) -> Shape:
    lengths = batch.lengths.astype(np.int64)
    return Shape(batch.ids.size, int(lengths @ lengths), len(lengths))


def _total(found: Sequence[Timed]) -> float:
    return sum(batch.seconds for batch in found)


def _predicted(fitted: Fitted, batch: Timed) -> float:
    shape = batch.shape
    seconds = fitted.cost.seconds(shape.padded_tokens, shape.sum_squares, shape.n)
    return seconds + fitted.cold_s * batch.cold
