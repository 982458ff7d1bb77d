"""``tandem bench gpu``: one command on any machine with a GPU; needs no download and no data.

What is measured: tokens a second through the backend and through the engine; the share of the device's own peak that
the model reaches (MFU), the peak being a plain product of large matrices of the same type in the same run; latency by
batch; what the host does meanwhile; what is allocated once all is warm; the same work by transformers. The figures that
are asked are for one H200 and an encoder of BERT-base's size; on anything else they are shown unasked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tandem.backends.base import BackendOptions
from tandem.backends.proof import BOUNDS
from tandem.backends.torch_device import CudaDevice, dtype_name, require_device
from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.gpu_model import Subject, find_subject, flops, full_batches, random_batch, texts_of
from tandem.bench.gpu_options import GpuBenchOptions
from tandem.bench.report import Check, Figure, Report, Series, at_least, at_most, missing, shown
from tandem.bench.stats import Summary, lowest_cosine, summarize
from tandem.errors import BackendFailed
from tandem.models.reference import forward
from tandem.types import Tier

if TYPE_CHECKING:
    from tandem.backends.torch_backend import TorchBackend
    from tandem.backends.torch_forward import TorchOptions

ASKED_TOKENS_S, ASKED_MFU = 2_500_000, 55.0
_ASKED_GPU, _ASKED_SIZE = "H200", (12, 768)
_SWEEP = (2048, 4096, 8192, 16384, 32768)
_PROBE_LENGTHS = (3, 50, 7, 128)


class _Bench(msgspec.Struct):
    """What the parts share. ``peak``: floating-point operations a second of the plain product."""

    options: GpuBenchOptions
    device: CudaDevice | None
    subject: Subject
    backend: TorchBackend
    report: Report
    peak: float = 0.0

    @property
    def asked(self) -> bool:
        """Whether the figures that are asked are for this machine and model."""
        size = self.options.layers, self.options.hidden
        return self.subject.made and self.device is not None and _ASKED_GPU in self.device.name and size == _ASKED_SIZE

    @property
    def where(self) -> str:
        return "cpu" if self.device is None else self.device.device

    def figure(self, name: str, asked: float, measured: float | Summary, unit: str, digits: int = 0) -> Figure:
        return at_least(name, asked, measured, unit, digits) if self.asked else shown(name, measured, unit, digits)


def gpu(options: GpuBenchOptions, note: Callable[[str], None]) -> Report:
    """Run it; ``note`` hears what is under way. Raises BackendFailed, ConfigError, ModelError."""
    device = require_device(options.device)
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as scratch:
        note("weights")
        subject = find_subject(options, Path(scratch))
        report = Report("tandem bench gpu", conditions(_workload(options, device, subject)))
        neighbours = Neighbours()
        backend = _backend(options, subject)
        bench = _Bench(options, device, subject, backend, report)
        try:
            for name, part in PARTS.items():
                note(name)
                part(bench)
        finally:
            backend.close()
        for variant in options.variants:
            note(f"variant {variant}")
            _variant(bench, variant)
        report.busy_by_others = neighbours.share()
    return report


def _backend(options: GpuBenchOptions, subject: Subject, tuning: TorchOptions | None = None) -> TorchBackend:
    from tandem.backends.graph_model import built_model
    from tandem.backends.torch_backend import TorchBackend

    backend_options = BackendOptions(tier=Tier(options.precision), streams=options.streams, device=options.device)
    return TorchBackend(built_model(subject.description, subject.weights), backend_options, tuning)


def _workload(options: GpuBenchOptions, device: CudaDevice | None, subject: Subject) -> dict[str, str]:
    from tandem.bench.gpu_torch import torch_words

    where = "the CPU: figures say nothing about GPUs"
    if device is not None:
        major, minor = device.capability
        memory = f"{device.total_bytes / 2**30:.0f} GiB, {device.free_bytes / 2**30:.0f} GiB free"
        where = f"{device.name}, compute capability {major}.{minor}, {memory}, driver {device.driver or 'unknown'}"
    return {
        "device": where,
        "torch": torch_words(),
        "model": f"{subject.name}, {options.precision} as {dtype_name(Tier(options.precision), device)}",
        "batches": f"{options.batch_tokens} tokens, {options.streams} under way, {options.rounds} rounds"
        + (", QUICK: the figures mean nothing" if options.quick else ""),
    }


def _right(bench: _Bench) -> None:
    d = bench.subject.description
    batch = random_batch(d, [min(length, d.max_positions) for length in _PROBE_LENGTHS], bench.options.seed)
    expected = forward(d, bench.subject.weights, batch)
    tier = Tier(bench.options.precision)
    cosine = lowest_cosine(bench.backend.run(batch), expected)
    bench.report.checks.append(Check(f"{tier} rows against the fp32 reference", cosine, BOUNDS[tier]))


def _peak(bench: _Bench) -> None:
    from tandem.bench.gpu_measure import timed
    from tandem.bench.gpu_torch import multiplier

    dtype = dtype_name(Tier(bench.options.precision), bench.device)
    size, repeats = (8192, 20) if bench.device is not None else (512, 2)
    run, operations = multiplier(bench.where, dtype, size, repeats)
    run()
    bench.peak = max(operations / timed(run) for _ in range(bench.options.rounds))
    bench.report.figures.append(shown(f"peak: product of {size} x {size} matrices", bench.peak / 1e12, " TFLOP/s", 1))


def _throughput(bench: _Bench) -> None:
    from tandem.bench.gpu_measure import throughput

    options, d = bench.options, bench.subject.description
    for tokens in options.text_tokens:
        found = throughput(bench.backend, bench.subject, options, tokens, options.batch_tokens)
        bench.report.series.append(Series(f"tandem backend, {tokens} tokens a text", "tokens/s", found))
        mfu = summarize([100 * value * flops(d, [tokens]) / tokens / bench.peak for value in found.values])
        name = f"MFU in the model, {tokens} tokens a text"
        figure = bench.figure(name, ASKED_MFU, mfu, " %", 1) if tokens == 512 else shown(name, mfu, " %", 1)
        bench.report.figures.append(figure)
    for size in () if options.quick else _SWEEP:
        name = f"tandem backend, batches of {size}"
        try:
            found = throughput(bench.backend, bench.subject, options, 50, size)
        except BackendFailed as error:
            bench.report.figures.append(missing(name, "", str(error)))
            break
        bench.report.series.append(Series(name, "tokens/s", found))


def _latency(bench: _Bench) -> None:
    from tandem.bench.gpu_measure import latency_ms

    for texts in bench.options.text_counts:
        for tokens in bench.options.text_tokens:
            found = latency_ms(bench.backend, bench.subject, bench.options, texts, tokens)
            bench.report.series.append(Series(f"tandem, {texts} x {tokens} tokens", "ms", found))


def _host(bench: _Bench) -> None:
    from tandem.bench.gpu_measure import host_share, steady_memory

    options = bench.options
    name = "host's part of a batch alone"
    for batch_tokens in (512, options.batch_tokens):
        if bench.device is None:
            bench.report.figures.append(missing(name, "", "the host is the device here"))
            break
        batch = full_batches(bench.subject.description, 50, batch_tokens, 1)[0]
        found = host_share(bench.backend, batch, 10 * options.rounds)
        text = f"{name}, {batch_tokens} tokens: {1000 * found.host_s:.2f} of {1000 * found.total_s:.2f} ms"
        bench.report.figures.append(shown(text, 100 * found.share, " %", 1))
    memory = steady_memory(bench.backend, bench.subject, options, bench.where)
    bench.report.details["steady memory"] = memory
    for counter, value in memory.items():
        words = f"{counter} over batches of mixed sizes, once warm"
        figure = at_most(words, 0, value, "", 0) if counter.startswith("pool") else shown(words, value, "", 0)
        bench.report.figures.append(figure)


def _engine(bench: _Bench) -> None:
    from tandem.bench.gpu_engine import through_engine

    options = bench.options
    texts = texts_of(bench.subject, options.engine_texts, 50, options.seed)
    ids = bench.subject.tokenizer.encode(texts, truncate=True).ids
    through_engine(bench.subject, bench.backend, ids[: len(ids) // 8], options.batch_tokens)
    for name, inputs in (("texts of 50 tokens", texts), ("the same as token ids", ids)):
        runs = [
            through_engine(bench.subject, bench.backend, inputs, options.batch_tokens) for _ in range(options.rounds)
        ]
        found = summarize([run.tokens_s for run in runs])
        bench.report.series.append(Series(f"tandem engine, {name}", "tokens/s", found))
        cores = summarize([run.cpu_seconds / run.seconds for run in runs])
        bench.report.figures += [
            bench.figure(f"through the engine, {name}", ASKED_TOKENS_S, found, " tokens/s"),
            shown(f"host cores in use meanwhile, {name}", cores, "", 1),
        ]


def _peer(bench: _Bench) -> None:
    from tandem.bench.gpu_peer import against_peer

    if bench.options.peer:
        against_peer(bench.backend, bench.subject, bench.options, bench.device, bench.report)


def _variant(bench: _Bench, name: str) -> None:
    """Full batches and a small one in another way of running. That one does not run here is a finding, no failure."""
    from tandem.backends.torch_forward import TorchOptions
    from tandem.bench.gpu_measure import latency_ms, throughput

    tunings = {
        "no-graphs": TorchOptions(graph_tokens=0),
        "fused-gelu": TorchOptions(fused_gelu=True),
        "compile": TorchOptions(compile=True),
    }
    options = bench.options
    try:
        backend = _backend(options, bench.subject, tunings[name])
        try:
            full = throughput(backend, bench.subject, options, 50, options.batch_tokens)
            small = latency_ms(backend, bench.subject, options, 8, 16)
            batch = random_batch(bench.subject.description, _PROBE_LENGTHS[:2], 0)
            cosine = lowest_cosine(backend.run(batch), forward(bench.subject.description, bench.subject.weights, batch))
        finally:
            backend.close()
    except (RuntimeError, BackendFailed) as error:
        bench.report.figures.append(missing(name, "", f"does not run here: {' '.join(str(error).split())[:300]}"))
        return
    bench.report.series += [
        Series(f"tandem {name}, 50 tokens a text", "tokens/s", full),
        Series(f"tandem {name}, 8 x 16 tokens", "ms", small),
    ]
    bench.report.figures.append(shown(f"{name}: 1 - cosine to the fp32 reference", 1 - cosine, "", 7))


PARTS: dict[str, Callable[[_Bench], None]] = {
    "vectors": _right,
    "peak": _peak,
    "throughput": _throughput,
    "latency": _latency,
    "host and memory": _host,
    "engine": _engine,
    "transformers": _peer,
}
