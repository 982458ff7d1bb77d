"""The backend's own ceiling: the batches that the scheduler would cut, straight through ``Backend.run``.

The scheduler's core has no clock and no I/O, so its batches are had by driving it by hand: ``callers`` requests are
always under way, a batch takes the time that the core itself predicts, and the batch that ends is followed by the next.
What the ceiling leaves out is all that is not the model: HTTP, JSON, tokenizing, queueing, hand-over between threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tandem.backends.base import Backend
from tandem.batching import POLICIES
from tandem.build import limits_of
from tandem.config import Settings
from tandem.models.loaded import LoadedModel
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.core import SchedulerCore, single
from tandem.scheduling.device import DeviceOptions
from tandem.types import Output, Priority, TokenBatch, TokenIds


def cut_batches(
    settings: Settings, model: LoadedModel, requests: Sequence[Sequence[TokenIds]], callers: int, backend: Backend
) -> list[TokenBatch]:
    """The batches of a closed loop of ``callers`` callers over ``requests``, in the order in which they are cut.

    As in the engine's shell, as many batches run as the backend has streams, and a full one is handed over ahead.
    """
    limits = limits_of(settings, model, backend.packing)
    core = single(POLICIES.get(settings.policy)(limits), DeviceOptions(slots=backend.streams, limits=limits))
    loop = asyncio.new_event_loop()
    try:
        return [
            core.devices[0].arrays(batch, model.tokenizer.pad_id) for batch in _drive(core, loop, requests, callers)
        ]
    finally:
        loop.close()


def _drive(
    core: SchedulerCore,
    loop: asyncio.AbstractEventLoop,
    requests: Sequence[Sequence[TokenIds]],
    callers: int,
) -> list[Batch]:
    device = core.devices[0]
    waiting = deque(requests)
    batches: list[Batch] = []
    running: deque[Batch] = deque()
    row = np.empty(0, np.float32)
    now = 0.0

    def arrive() -> None:
        if waiting:
            ids = waiting.popleft()
            group = Group(len(ids), loop.create_future(), Priority.NORMAL, Output.POOLED)
            core.add([Item(group, i, one, 0) for i, one in enumerate(ids)], now)

    for _ in range(callers):
        arrive()
    while True:
        cut = [batch for _, batch in core.batches(now)]
        batches += cut
        running += cut
        if not running:
            return batches
        ended = running.popleft()
        device.end(ended)
        now += ended.tokens / device.rate
        for item in ended.items:
            item.group.settle(item.index, row, 0.0, 0.0)
        for _ in range(len({id(item.group): item.group for item in ended.items if not item.group.pending})):
            arrive()


class Ceiling:
    """A backend with its streams' threads, kept: a thread's first run prepares its stream."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(backend.streams)

    def seconds(self, batches: Sequence[TokenBatch]) -> float:
        """Wall seconds to run all ``batches``, as many side by side as the backend has streams."""
        pending = iter(list(batches))

        def drain() -> None:
            # next() on a list iterator is one bytecode's work under the GIL, so the threads share it safely.
            for batch in pending:
                self._backend.run(batch)

        started = time.perf_counter()
        for done in [self._threads.submit(drain) for _ in range(self._backend.streams)]:
            done.result()
        return time.perf_counter() - started

    def each(self, batches: Sequence[TokenBatch]) -> list[float]:
        """Seconds of each batch alone, one after another."""
        return self._threads.submit(self._each, batches).result()

    def close(self) -> None:
        self._threads.shutdown()
        self._backend.close()

    def _each(self, batches: Sequence[TokenBatch]) -> list[float]:
        taken = []
        for batch in batches:
            started = time.perf_counter()
            self._backend.run(batch)
            taken.append(time.perf_counter() - started)
        return taken


def waste(batches: Sequence[TokenBatch]) -> float:
    """The share of padding among all tokens that run."""
    return 1 - sum(int(b.lengths.sum()) for b in batches) / max(1, sum(b.ids.size for b in batches))
