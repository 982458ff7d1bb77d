"""The only place where names become objects: settings in, a running engine out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tandem.backends import BACKENDS, Backend
from tandem.backends.choose import Choice, Wish, choose
from tandem.backends.cpu import CpuInfo, cpu_info
from tandem.backends.fake import FakeBackend
from tandem.backends.graph_model import graph_model
from tandem.backends.probe import Probes
from tandem.backends.proof import probe_batch, prove
from tandem.batching import POLICIES, BatchLimits
from tandem.clock import Clock, SystemClock
from tandem.config import Settings, source_options
from tandem.engine import Engine, EngineOptions
from tandem.errors import BackendFailed
from tandem.intake import ModelInfo
from tandem.models.catalog import look_up, names_of
from tandem.models.loaded import LoadedModel, load_model
from tandem.models.progress import Progress
from tandem.models.resolve import find_model
from tandem.scheduling.core import single
from tandem.scheduling.device import DeviceOptions
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import Outcome, Packing, Tier
from tandem.workers.inline import InlineWorker

log = logging.getLogger("tandem")

FAKE = "fake"
# Throughput on the CPU is flat from about 512 tokens a batch (docs/benchmarks.md); larger ones only wait longer.
CPU_BATCH_TOKENS = 1024
# Activations of one token in one layer, fp32, for BERT-class encoders: the layer's input, query, key, value, the four
# rows of the MLP, and what the engine keeps twice while it reorders.
_ROWS_PER_TOKEN = 16


def choose_backend(
    settings: Settings, model: LoadedModel, cpu: CpuInfo | None = None, *, fresh: bool = False
) -> Choice:
    """Probe the backends in order; verdicts are kept beside the store, and made anew where ``fresh``.

    Raises BackendFailed and ConfigError.
    """
    return choose(wish_of(settings), cpu or cpu_info(), model.folder, probes_of(settings, fresh=fresh))


def wish_of(settings: Settings) -> Wish:
    """What the settings say of the backend."""
    return Wish(
        backend=settings.backend, precision=settings.precision, threads=settings.threads, streams=settings.streams
    )


def probes_of(settings: Settings, *, fresh: bool = False) -> Probes:
    """Verdicts are kept beside the store."""
    return Probes(cache=source_options(settings).store_dir.parent / "probes", fresh=fresh)


def build_backend(settings: Settings, model: LoadedModel) -> tuple[Backend, str]:
    """The backend that serves ``model``, proven in this process, and its device in words.

    Raises BackendFailed when no backend keeps its tier's promise, ConfigError for an unknown one.
    """
    cpu = cpu_info()
    if settings.backend == FAKE:
        return FakeBackend(), "cpu (fake)"
    choice = choose_backend(settings, model, cpu)
    try:
        backend = _proven(choice, model)
    except BackendFailed as failure:
        # The verdict may have been a kept one, and no longer true.
        log.warning("%s; probing anew", failure)
        choice = choose_backend(settings, model, cpu, fresh=True)
        backend = _proven(choice, model)
    for tried in choice.tried:
        log.log(logging.INFO if tried.ok else logging.WARNING, "%s %s: %s", tried.backend, tried.tier, tried.why)
    if settings.precision == Tier.BF16 and choice.options.tier is not Tier.BF16:
        log.warning("bf16 is not to be had here; serving the better tier %s", choice.options.tier)
    return backend, f"cpu ({choice.backend}, {choice.options.threads} threads, {choice.options.streams} streams)"


def _proven(choice: Choice, model: LoadedModel) -> Backend:
    """The chosen backend in this process, held to its tier's promise. Raises BackendFailed."""
    try:
        backend = BACKENDS.get(choice.backend)(graph_model(model), choice.options)
        batch = probe_batch(model.tokenizer, backend.packing)
        proof = prove(backend, batch, choice.verdict.reference_rows(len(batch.lengths)))
    except RuntimeError as error:
        raise BackendFailed(f"{choice.backend} passed its probe but fails in this process: {error}") from error
    if proof.holds:
        return backend
    backend.close()
    raise BackendFailed(
        f"{choice.backend} {backend.tier} passed its probe but not its proof: cosine {proof.cosine:.6f} to the "
        f"reference, promised {proof.bound}"
    )


def build_engine(
    settings: Settings,
    clock: Clock | None = None,
    observer: Callable[[Outcome], None] | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Load the model, choose and prove a backend, wire the rest. ``observer`` hears of every batch.

    Takes seconds, more when the model must be fetched. Raises ModelError, ConfigError, BackendFailed.
    """
    clock = clock or SystemClock()
    make_policy = POLICIES.get(settings.policy)
    if settings.backend not in ("auto", FAKE):
        BACKENDS.get(settings.backend)
    folder = find_model(settings.model, source_options(settings), progress)
    model = load_model(folder)
    backend, device = build_backend(settings, model)
    limits = batch_limits(settings, model, backend.packing)
    options = DeviceOptions(slots=backend.streams, limits=limits)
    core = single(make_policy(limits), options)
    worker = InlineWorker(backend, clock)
    loop = SchedulerLoop(core, [worker], clock, model.tokenizer.pad_id, observer or _unobserved)
    engine_options = EngineOptions(
        max_concurrent_requests=settings.max_concurrent_requests,
        max_queue_s=settings.max_queue_s,
        auto_truncate=settings.auto_truncate,
        tokenizer_threads=settings.tokenizer_threads,
        warm_shapes=(warm_shapes(limits),) if settings.warm else (),
    )
    return Engine(model_info(settings, model, backend, device), model.tokenizer, loop, clock, engine_options)


def batch_limits(settings: Settings, model: LoadedModel, packing: Packing) -> BatchLimits:
    """What a batch of this model may be; ``packing`` is the backend's."""
    d = model.description
    return BatchLimits(
        max_tokens=settings.max_batch_tokens or CPU_BATCH_TOKENS,
        max_width=model.tokenizer.max_tokens,
        max_bytes=settings.max_batch_bytes,
        bytes_per_token=4.0 * _ROWS_PER_TOKEN * d.hidden,
        bytes_per_square=4.0 * d.heads,
        packing=packing,
    )


def warm_shapes(limits: BatchLimits) -> tuple[tuple[int, int], ...]:
    """The common shapes: short questions alone and in small company, and one full batch of each of some widths."""
    if limits.packing is not Packing.ONE_A_ROW:
        alone = [(1, width) for width in (16, 24, 32, 40, 48, 56, 64)]
        small = [(rows, 32) for rows in (2, 3, 4, 5, 6, 8, 10)] + [(rows, 64) for rows in (2, 4)]
    else:
        alone = [(1, width) for width in range(3, 25)]
        small = [(n, width) for width in range(8, 17, 2) for n in (2, 4)]
    full = [(max(1, limits.max_tokens // width), width) for width in (128, 256)]
    return tuple((n, width) for n, width in alone + small + full if width <= limits.max_width)


def model_info(settings: Settings, model: LoadedModel, backend: Backend, device: str) -> ModelInfo:
    """What is served, for people and clients."""
    folder, pipeline = model.folder, model.pipeline
    entry = look_up(folder.name)
    aliases = dict.fromkeys([settings.model, folder.name, folder.path.name, *(names_of(entry) if entry else ())])
    return ModelInfo(
        id=settings.served_model_name[0] if settings.served_model_name else folder.name,
        aliases=(*settings.served_model_name, *aliases),
        dims=backend.dims,
        hidden=backend.hidden,
        max_tokens=model.tokenizer.max_tokens,
        tier=backend.tier,
        device=device,
        backend=backend.name,
        pooling="+".join(pipeline.pooling),
        normalize=pipeline.normalize,
        prompts=dict(pipeline.prompts),
        default_prompt_name=pipeline.default_prompt_name,
        fingerprint=folder.fingerprint(),
        source=folder.source,
        dtype="bfloat16" if backend.tier is Tier.BF16 else "float32",
    )


def _unobserved(outcome: Outcome) -> None:
    """Nobody listens."""
