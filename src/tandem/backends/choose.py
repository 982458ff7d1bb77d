"""Which backend serves a model on this CPU, at which tier, and why."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import msgspec

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.base import CPU_DEVICE
from tandem.backends.cpu import CpuInfo
from tandem.backends.probe import ProbeJob, Probes, Verdict, probe
from tandem.errors import BackendFailed
from tandem.models.folder import ModelFolder
from tandem.types import Tier

_X86 = ("x86_64", "AMD64")
# Engines that compute a tier natively; any engine does fp32.
_BF16_ENGINES = ("openvino", "torch")
_GPU_ENGINE = "torch"
# Batches in flight on a GPU: one computes while the other is copied.
_GPU_STREAMS = 2


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings ask for: a backend's name or ``auto``, a tier or ``auto``, threads and streams (0: choose).

    ``device``: where, as ``cpu`` or ``cuda:0``; ``backend``, ``threads`` and ``streams`` are for the CPU alone, and the
    memory limits (``BackendOptions``) for GPUs.
    """

    backend: str = "auto"
    precision: str = "auto"
    threads: int = 0
    streams: int = 0
    device: str = CPU_DEVICE
    memory_fraction: float = 0.9
    memory_bytes: int = 0

    @property
    def on_cpu(self) -> bool:
        return self.device == CPU_DEVICE


class Tried(msgspec.Struct, frozen=True):
    """One candidate and what the probe said of it."""

    backend: str
    options: BackendOptions
    verdict: Verdict

    @property
    def tier(self) -> Tier:
        return self.options.tier

    @property
    def ok(self) -> bool:
        return self.verdict.ok

    @property
    def why(self) -> str:
        return self.verdict.why


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate that was chosen, its verdict, and all that were tried, in order."""

    backend: str
    options: BackendOptions
    verdict: Verdict
    tried: tuple[Tried, ...]


def candidates(wish: Wish, cpu: CpuInfo, machine: str | None = None) -> list[tuple[str, Tier]]:
    """What to try, best first. A tier better than the one asked for serves it too, so fp32 always ends the list.

    Raises ConfigError for an unknown backend.
    """
    if not wish.on_cpu:
        # Which 16-bit type keeps the bf16 tier is the backend's choice, by the GPU.
        tiers = (Tier.FP32,) if wish.precision == Tier.FP32 else (Tier.BF16, Tier.FP32)
        return [(_GPU_ENGINE, tier) for tier in tiers]
    if wish.backend != "auto":
        BACKENDS.get(wish.backend)
        engines: tuple[str, ...] = (wish.backend,)
    else:
        x86 = (machine or platform.machine()) in _X86
        engines = ("openvino", "onnxruntime") if x86 else ("onnxruntime", "openvino")
    found = []
    # Without native bf16 that tier is emulated: slower than fp32, and less exact.
    if wish.precision != Tier.FP32 and cpu.native_bf16:
        found += [(engine, Tier.BF16) for engine in engines if engine in _BF16_ENGINES]
    return found + [(engine, Tier.FP32) for engine in engines]


def options_for(wish: Wish, cpu: CpuInfo, tier: Tier) -> BackendOptions:
    """Threads from the cgroup; one stream a thread up to four threads, then streams of several threads.

    Small batches do not scale over threads: on two cores two streams of one gave 5-10 % more than one stream of two,
    and neither waits for the other when a core is taken away for a moment (docs/benchmarks.md).
    """
    if not wish.on_cpu:
        return BackendOptions(
            tier=tier,
            streams=_GPU_STREAMS,
            device=wish.device,
            memory_fraction=wish.memory_fraction,
            memory_bytes=wish.memory_bytes,
        )
    threads = wish.threads or cpu.cpus
    streams = wish.streams or (threads if threads <= 4 else max(4, threads // 4))
    return BackendOptions(tier=tier, threads=threads, streams=min(streams, threads))


def tries(wish: Wish, cpu: CpuInfo, folder: ModelFolder, probes: Probes) -> Iterator[Tried]:
    """Probe the candidates in order, each one when it is asked for. Raises ConfigError for an unknown backend."""
    fingerprint = folder.fingerprint()
    for name, tier in candidates(wish, cpu):
        options = options_for(wish, cpu, tier)
        job = ProbeJob(backend=name, options=options, folder=str(folder.path), name=folder.name)
        yield Tried(name, options, probe(job, cpu, fingerprint, probes))


def choose(wish: Wish, cpu: CpuInfo, folder: ModelFolder, probes: Probes) -> Choice:
    """Probe the candidates in order and take the first that runs and is right.

    Raises BackendFailed when none does, with what each answered, and ConfigError for an unknown backend.
    """
    tried: list[Tried] = []
    for one in tries(wish, cpu, folder, probes):
        tried.append(one)
        if one.ok:
            return Choice(backend=one.backend, options=one.options, verdict=one.verdict, tried=tuple(tried))
    answers = "; ".join(f"{one.backend} {one.tier} {one.why}" for one in tried)
    raise BackendFailed(f"no inference engine works on {wish.device} for {folder.name}: {answers}")
