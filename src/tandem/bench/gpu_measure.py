"""Timing one backend: full batches, small ones, what the host does, what memory does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from tandem.backends.torch_backend import TorchBackend
from tandem.bench.ceiling import Ceiling
from tandem.bench.gpu_engine import Lent
from tandem.bench.gpu_model import Subject, full_batches, random_batch
from tandem.bench.gpu_options import GpuBenchOptions
from tandem.bench.gpu_torch import memory_counters
from tandem.bench.stats import Summary, summarize
from tandem.types import TokenBatch

_WARM = 3
_STEADY_BATCHES = 200


class HostShare(msgspec.Struct, frozen=True):
    """Of a batch that runs alone: seconds that the host packs, sends and launches, and seconds in all."""

    host_s: float
    total_s: float

    @property
    def share(self) -> float:
        return self.host_s / self.total_s


def throughput(
    backend: TorchBackend, subject: Subject, options: GpuBenchOptions, tokens: int, batch_tokens: int
) -> Summary:
    """Tokens a second over full batches of texts of ``tokens`` tokens, as many under way as there are streams."""
    batches = full_batches(subject.description, tokens, batch_tokens, options.full_batches)
    ceiling = Ceiling(Lent(backend))
    total = sum(int(batch.lengths.sum()) for batch in batches)
    ceiling.seconds(batches[:_WARM])
    found = summarize([total / ceiling.seconds(batches) for _ in range(options.rounds)])
    ceiling.close()
    return found


def latency_ms(backend: TorchBackend, subject: Subject, options: GpuBenchOptions, texts: int, tokens: int) -> Summary:
    """Milliseconds from a batch to its rows, nothing else under way; cut where it is more than a full batch."""
    most = max(1, options.batch_tokens // tokens)
    counts = [most] * (texts // most) + ([texts % most] if texts % most else [])
    batches = [random_batch(subject.description, [tokens] * count, seed) for seed, count in enumerate(counts)]

    def once() -> float:
        # Cut batches are launched one behind the other, as far as there are streams for them.
        return timed(lambda: _through(backend, batches))

    for _ in range(_WARM):
        once()
    return summarize([1000 * once() for _ in range(4 * options.rounds)])


def host_share(backend: TorchBackend, batch: TokenBatch, rounds: int) -> HostShare:
    """Medians over ``rounds``. What the host does while the device computes the batch before costs nothing."""
    host, total = [], []
    for round_number in range(-_WARM, rounds):
        started = time.perf_counter()
        finish = backend.begin(batch)
        launched = time.perf_counter()
        finish()
        ended = time.perf_counter()
        if round_number >= 0:
            host.append(launched - started)
            total.append(ended - started)
    return HostShare(summarize(host).median, summarize(total).median)


def steady_memory(backend: TorchBackend, subject: Subject, options: GpuBenchOptions, device: str) -> dict[str, int]:
    """What was allocated over batches of mixed sizes, by counter, once the same batches have been run before."""
    count = 10 if options.quick else _STEADY_BATCHES
    sizes = [[options.text_tokens[i % len(options.text_tokens)]] * (1 + 7 * i % 60) for i in range(count)]
    batches = [random_batch(subject.description, lengths, seed) for seed, lengths in enumerate(sizes)]

    def counted() -> dict[str, int]:
        return memory_counters(device) | {"pool allocations": backend.store_allocations()}

    for batch in batches:
        backend.run(batch)
    before = counted()
    for batch in batches:
        backend.run(batch)
    return {name: value - before[name] for name, value in counted().items()}


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _through(backend: TorchBackend, batches: Sequence[TokenBatch]) -> None:
    under_way: list[Callable[[], object]] = []
    for batch in batches:
        if len(under_way) == backend.streams:
            under_way.pop(0)()
        under_way.append(backend.begin(batch))
    for finish in under_way:
        finish()
