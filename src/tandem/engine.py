"""One request from texts to rows: permit, tokenizer, scheduler, exit. Every layer is entered once.

An engine lives in one event loop. Its methods raise errors of the tree only, and ``CancelledError`` when the caller
leaves, whose texts are then dropped from the queue.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandem.admission import Admission, EngineOptions
from tandem.clock import Clock
from tandem.errand import Answer, Errand
from tandem.errors import DeadlineExceeded, Draining
from tandem.intake import Intake, ModelInfo
from tandem.models.tokenizer import TextTokenizer
from tandem.recall import Recall
from tandem.scheduling.base import group_of
from tandem.scheduling.core import Backlog
from tandem.scheduling.loop import SchedulerLoop
from tandem.scheduling.seat import DeviceState
from tandem.types import CacheMode, EmbedRequest, EmbedResult, Output, Priority, Rows, StageTimes

_NO_TIMES = StageTimes(0.0, 0.0, 0.0, 0.0)


class Engine:
    """Serves one model through a scheduler loop."""

    def __init__(
        self, model: ModelInfo, tokenizer: TextTokenizer, loop: SchedulerLoop, clock: Clock, options: EngineOptions
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.loop = loop
        self._clock = clock
        self._options = options
        self._admission = Admission(loop, options)
        self.intake = Intake(model, tokenizer, options.auto_truncate, options.tokenizer_threads)
        self.recall: Recall | None = None
        """Its caches; None where it has none."""
        self._inflight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    @property
    def inflight(self) -> int:
        """Requests accepted and not yet answered."""
        return self._inflight

    def backlog(self) -> Backlog:
        return self.loop.core.backlog()

    def ask(self, request: EmbedRequest) -> EmbedResult | Coroutine[Any, Any, EmbedResult]:
        """The result where memory has all of it; else what has to be awaited for it. Raises RequestError for what the
        caller can mend, ServiceError for the rest; what is awaited does so too."""
        if self._draining:
            raise Draining("the server is shutting down", retry_after_s=1.0)
        if self.recall is None or request.cache is CacheMode.OFF or request.output is Output.TOKENS:
            # Rows of tokens are too large to keep.
            self._admission.admit(request, self._inflight)
            return self._under_way(request, partial(self._compute, request, self._admission.check_queue))
        self.intake.check(request)
        begun = self.recall.begin(request)
        if isinstance(begun, Answer):
            # What memory has costs less than to refuse it.
            return _recalled(request, begun, self.model, _NO_TIMES)
        self._admission.admit(request, self._inflight)
        return self._under_way(request, partial(self._fetch, request, begun))

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """``ask``, and wait."""
        answer = self.ask(request)
        return answer if isinstance(answer, EmbedResult) else await answer

    async def probe(self) -> None:
        """One real forward pass of one short text, past admission. Raises ServiceError."""
        await self._compute(EmbedRequest(inputs=["ready?"], priority=Priority.CRITICAL), _unchecked)

    async def start(self) -> None:
        """Run the common shapes, so that no request pays for an engine's first sight of them. Raises ServiceError."""
        await self.loop.warm(self._options.warm_shapes)

    def readiness(self) -> tuple[bool, str]:
        """Whether any device answers as it should, and what is wrong with those that do not."""
        return self.loop.health()

    def devices(self) -> dict[str, DeviceState]:
        """How each device is, by its id."""
        return {seat.device.id: seat.state() for seat in self.loop.seats}

    async def drain(self) -> None:
        """Accept nothing more and wait until all that was accepted is answered."""
        self._draining = True
        await self._idle.wait()

    async def close(self, *, at_once: bool = False) -> None:
        """Refuse what waits, and free the devices once what runs has ended, or ``at_once``. Idempotent."""
        self._draining = True
        await self.loop.close(at_once=at_once)
        self.intake.close()
        if self.recall is not None:
            await self.recall.close()

    def halt(self) -> None:
        """End the device's threads without the event loop, for a process that ends without ``close``. Blocks."""
        self._draining = True
        self.loop.halt()

    async def _under_way(self, request: EmbedRequest, work: Callable[[], Awaitable[EmbedResult]]) -> EmbedResult:
        self._inflight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(request.timeout_s):
                return await work()
        except TimeoutError as error:
            raise DeadlineExceeded("the request's deadline passed before it was computed") from error
        finally:
            self._inflight -= 1
            if not self._inflight:
                self._idle.set()

    async def _fetch(self, request: EmbedRequest, errand: Errand) -> EmbedResult:
        started_s = self._clock.now()
        answer = await errand.run(self._admission.check_queue)
        n = max(1, answer.computed)
        times = StageTimes(answer.tokenize_s, answer.queue_s / n, answer.infer_s / n, self._clock.now() - started_s)
        return _recalled(request, answer, self.model, times)

    async def _compute(self, request: EmbedRequest, check: Callable[[EmbedRequest], None]) -> EmbedResult:
        """Past all caches."""
        started_s = self._clock.now()
        encoded = await self.intake.encode(request)
        # Again: many requests may have come in while the queue was empty, and tokenized since.
        check(request)
        tokenized_s = self._clock.now()
        due_s = None if request.timeout_s is None else started_s + request.timeout_s
        group, items = group_of(request, encoded.ids, encoded.skips, due_s)
        await self.loop.run(group, items)
        rows = _finish(request, [row for row in group.rows if row is not None], self.model)
        n = len(items)
        times = StageTimes(
            tokenize_s=tokenized_s - started_s,
            queue_s=group.queue_s / n,
            infer_s=group.infer_s / n,
            total_s=self._clock.now() - started_s,
        )
        return EmbedResult(rows, [item.length for item in items], times)


def _unchecked(request: EmbedRequest) -> None:
    """Let in whatever the queue."""


def _recalled(request: EmbedRequest, answer: Answer, model: ModelInfo, times: StageTimes) -> EmbedResult:
    rows = _finish(request, answer.rows(), model)
    return EmbedResult(rows, answer.token_counts(), times, answer.sources, answer.similarity)


def _finish(request: EmbedRequest, rows: Sequence[Rows], model: ModelInfo) -> Rows | list[Rows]:
    """The exit: cut to ``dimensions``, then normalise, so that a shortened row is of length 1 again."""
    normalize = model.normalize if request.normalize is None else request.normalize
    if request.output is Output.TOKENS:
        return [_unit(row[:, : request.dimensions]) if normalize else row[:, : request.dimensions] for row in rows]
    stacked = rows[0][None] if len(rows) == 1 else np.stack(rows)
    if request.dimensions is not None:
        stacked = stacked[:, : request.dimensions]
    # A copy: the callers of one flight have one row, and each may write into his own.
    return _unit(stacked) if normalize else np.array(stacked, order="C")


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1, C-contiguous; a row of zeros stays one. Each comes out the same to the last bit, in
    whatever company."""
    wide = rows.astype(np.float64)
    if len(wide) == 1:
        wide /= max(math.sqrt(np.vecdot(wide[0], wide[0])), 1e-12)
        return wide.astype(np.float32)
    norms = np.sqrt(np.vecdot(wide, wide))
    wide /= np.maximum(norms, 1e-12)[:, None]
    return wide.astype(np.float32)
