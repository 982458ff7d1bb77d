"""The only place where names become objects: settings in, a running engine out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tandem.admission import EngineOptions
from tandem.backends import BACKENDS
from tandem.backends.footprint import guessed
from tandem.batching import POLICIES, BatchLimits
from tandem.caches import build_near, build_recall
from tandem.clock import Clock, SystemClock
from tandem.config import Settings, source_options
from tandem.engine import Engine
from tandem.fleet import FAKE, Member, build_fleet
from tandem.intake import ModelInfo
from tandem.memory.estimate import Footprint
from tandem.models.catalog import look_up, names_of
from tandem.models.loaded import LoadedModel, load_model
from tandem.models.progress import Progress
from tandem.models.resolve import find_model
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.cost_model import CPU_PRIOR, GPU_PRIOR
from tandem.scheduling.device import Device, DeviceOptions
from tandem.scheduling.dispatch import DISPATCHERS
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import Outcome, Packing, Tier

# Throughput on the CPU is flat from about 512 tokens a batch (docs/benchmarks.md); larger ones only wait longer.
CPU_BATCH_TOKENS = 1024
# A GPU needs this many to be busy; what the latency objective allows bounds it further.
GPU_BATCH_TOKENS = 16_384


def build_engine(
    settings: Settings,
    clock: Clock | None = None,
    observer: Callable[[Outcome], None] | None = None,
    progress: Progress | None = None,
    *,
    processes: bool = False,
) -> Engine:
    """Load the model, start and prove its workers, wire the rest. ``observer`` hears of every batch. ``processes``:
    workers are processes, unless the settings say otherwise.

    Takes seconds, more when the model must be fetched. Raises ModelError, ConfigError, BackendFailed.
    """
    clock = clock or SystemClock()
    make_policy = POLICIES.get(settings.policy)
    dispatcher = DISPATCHERS.get(settings.dispatcher)()
    if settings.backend not in ("auto", FAKE):
        BACKENDS.get(settings.backend)
    folder = find_model(settings.model, source_options(settings), progress)
    model = load_model(folder)
    members = build_fleet(settings, model, clock, processes=processes)
    limits = [batch_limits(settings, model, member) for member in members]
    devices = [
        Device(make_policy(own), device_options(settings, member, own))
        for member, own in zip(members, limits, strict=True)
    ]
    core = SchedulerCore(devices, dispatcher)
    workers = [member.worker for member in members]
    loop = SchedulerLoop(core, workers, clock, model.tokenizer.pad_id, observer or _unobserved)
    engine_options = EngineOptions(
        max_concurrent_requests=settings.max_concurrent_requests,
        max_queue_s=settings.max_queue_s,
        max_queue_texts=settings.max_queue_texts,
        auto_truncate=settings.auto_truncate,
        tokenizer_threads=settings.tokenizer_threads,
        warm_shapes=tuple(map(warm_shapes, limits)) if settings.warm else (),
    )
    engine = Engine(model_info(settings, model, members), model.tokenizer, loop, clock, engine_options)
    try:
        engine.recall = build_recall(settings, engine.model, engine.intake, loop, clock)
        if engine.recall is not None:
            engine.recall.near = build_near(settings, model, engine.model.dims, engine.recall.cache)
    except BaseException:
        engine.halt()
        raise
    return engine


def device_options(settings: Settings, member: Member, limits: BatchLimits) -> DeviceOptions:
    """A member of the fleet as the scheduler takes it."""
    return DeviceOptions(
        id=member.plan.id,
        slots=member.worker.slots,
        limits=limits,
        prior=CPU_PRIOR if member.plan.on_cpu else GPU_PRIOR,
        latency_objective_s=settings.latency_objective_s,
    )


def batch_limits(settings: Settings, model: LoadedModel, member: Member) -> BatchLimits:
    """What a batch of this model may be on a device."""
    facts = member.worker.facts
    takes = member.footprint or guessed(model.description, facts.backend, facts.tier)
    return limits_of(settings, model, facts.packing, takes, on_cpu=member.plan.on_cpu)


def limits_of(
    settings: Settings,
    model: LoadedModel,
    packing: Packing,
    takes: Footprint | None = None,
    *,
    on_cpu: bool = True,
) -> BatchLimits:
    """The same for a backend of that packing; ``takes``: what a batch takes, by default in fp32 on any engine."""
    takes = takes or guessed(model.description, "", Tier.FP32)
    return BatchLimits(
        max_tokens=settings.max_batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS),
        max_width=model.tokenizer.max_tokens,
        max_bytes=settings.max_batch_bytes,
        fixed_bytes=takes.fixed_bytes,
        # A text has three tokens at least.
        bytes_per_token=takes.per_token_bytes + takes.per_text_bytes / 3,
        bytes_per_square=takes.per_square_bytes if on_cpu else 0.0,
        packing=packing,
    )


def warm_shapes(limits: BatchLimits) -> tuple[tuple[int, int], ...]:
    """The common shapes: short questions alone and in small company, and one full batch of each of some widths."""
    if limits.packing is Packing.FLAT:
        alone, small = [(1, 16)], [(4, 32), (16, 32), (64, 32)]
    elif limits.packing is Packing.ROWS:
        alone = [(1, width) for width in (16, 24, 32, 40, 48, 56, 64)]
        small = [(rows, 32) for rows in (2, 3, 4, 5, 6, 8, 10)] + [(rows, 64) for rows in (2, 4)]
    else:
        alone = [(1, width) for width in range(3, 25)]
        small = [(n, width) for width in range(8, 17, 2) for n in (2, 4)]
    full = [(max(1, limits.max_tokens // width), width) for width in (128, 256)]
    shapes = alone + small + full
    return tuple((n, s) for n, s in shapes if s <= limits.max_width and n * s <= limits.max_tokens)


def model_info(settings: Settings, model: LoadedModel, members: Sequence[Member]) -> ModelInfo:
    """What is served, for people and clients. The tier is the least of the devices'."""
    facts = members[0].worker.facts
    tier = Tier.BF16 if any(member.worker.facts.tier is Tier.BF16 for member in members) else Tier.FP32
    folder, pipeline = model.folder, model.pipeline
    entry = look_up(folder.name)
    aliases = dict.fromkeys([settings.model, folder.name, folder.path.name, *(names_of(entry) if entry else ())])
    return ModelInfo(
        id=settings.served_model_name[0] if settings.served_model_name else folder.name,
        aliases=(*settings.served_model_name, *aliases),
        dims=facts.dims,
        hidden=facts.hidden,
        max_tokens=model.tokenizer.max_tokens,
        tier=tier,
        device=" + ".join(member.words for member in members),
        backend="+".join(dict.fromkeys(member.worker.facts.backend for member in members)),
        pooling="+".join(pipeline.pooling),
        normalize=pipeline.normalize,
        prompts=dict(pipeline.prompts),
        default_prompt_name=pipeline.default_prompt_name,
        fingerprint=folder.fingerprint(),
        source=folder.source,
        dtype="bfloat16" if tier is Tier.BF16 else "float32",
    )


def _unobserved(outcome: Outcome) -> None:
    """Nobody listens."""
