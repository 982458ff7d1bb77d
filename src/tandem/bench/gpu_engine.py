"""Texts through the whole engine, tokenizer to rows, on one backend: what a caller of the library gets."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

import msgspec

from tandem.admission import EngineOptions
from tandem.backends.base import Backend
from tandem.batching import POLICIES, BatchLimits
from tandem.bench.gpu_model import Subject
from tandem.clock import SystemClock
from tandem.engine import Engine
from tandem.intake import ModelInfo
from tandem.scheduling.core import single
from tandem.scheduling.cost_model import GPU_PRIOR
from tandem.scheduling.device import DeviceOptions
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import EmbedRequest, Outcome, Output, TokenIds
from tandem.workers.inline import InlineWorker

_LIST = 512
_CALLERS = 8


class EngineRun(msgspec.Struct, frozen=True):
    """``seconds`` of wall time and ``cpu_seconds`` of this process's, for ``tokens`` tokens in ``batches`` batches."""

    seconds: float
    cpu_seconds: float
    tokens: int
    batches: int

    @property
    def tokens_s(self) -> float:
        return self.tokens / self.seconds


class Lent:
    """A backend that outlives its worker."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.tier, self.packing = backend.name, backend.tier, backend.packing
        self.dims, self.hidden, self.streams = backend.dims, backend.hidden, backend.streams
        self.run = backend.run

    def close(self) -> None:
        """Its owner closes it."""


def through_engine(
    subject: Subject, backend: Backend, inputs: Sequence[str] | Sequence[TokenIds], batch_tokens: int
) -> EngineRun:
    """Eight callers, each with lists of 512 inputs one after the other, until all are done."""
    limits = BatchLimits(
        max_tokens=batch_tokens,
        max_width=subject.tokenizer.max_tokens,
        max_bytes=1 << 40,
        bytes_per_token=64.0 * subject.description.hidden,
        packing=backend.packing,
    )
    outcomes: list[Outcome] = []
    clock = SystemClock()
    devices = DeviceOptions(slots=backend.streams, limits=limits, prior=GPU_PRIOR)
    core = single(POLICIES.get("memory_aware")(limits), devices)
    loop = SchedulerLoop(core, [InlineWorker(Lent(backend), clock)], clock, subject.tokenizer.pad_id, outcomes.append)
    options = EngineOptions(max_queue_s=1e9, tokenizer_threads=max(2, (os.cpu_count() or 2) // 2))
    engine = Engine(_info(subject, backend), subject.tokenizer, loop, clock, options)
    return asyncio.run(_run(engine, inputs, outcomes))


async def _run(engine: Engine, inputs: Sequence[str] | Sequence[TokenIds], outcomes: list[Outcome]) -> EngineRun:
    lists = iter([list(inputs[start : start + _LIST]) for start in range(0, len(inputs), _LIST)])

    async def caller() -> int:
        tokens = 0
        for one in lists:
            result = await engine.embed(EmbedRequest(inputs=one, output=Output.POOLED))  # type: ignore[arg-type]
            tokens += sum(result.token_counts)
        return tokens

    try:
        started, used = time.perf_counter(), time.process_time()
        tokens = sum(await asyncio.gather(*(caller() for _ in range(_CALLERS))))
        return EngineRun(time.perf_counter() - started, time.process_time() - used, tokens, len(outcomes))
    finally:
        await engine.close()


def _info(subject: Subject, backend: Backend) -> ModelInfo:
    return ModelInfo(
        id=subject.name,
        aliases=(),
        dims=backend.dims,
        hidden=backend.hidden,
        max_tokens=subject.tokenizer.max_tokens,
        tier=backend.tier,
        device=backend.name,
        backend=backend.name,
        pooling="+".join(subject.description.pooling),
        normalize=True,
        prompts={},
        default_prompt_name=None,
        fingerprint="",
        source="bench",
        dtype=backend.tier.value,
    )
