"""Batches that no request asked for: an engine prepares its kernels, and the cost model learns what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tandem.errors import BackendFailed
from tandem.scheduling.seat import Seat
from tandem.types import TokenBatch
from tandem.workers.base import Done


async def warm(seat: Seat, shapes: Sequence[tuple[int, int]], pad_id: int) -> None:
    """Run a batch of each shape (n, s) on every stream of a device. Raises BackendFailed when one fails."""
    for shape in shapes:
        for done in await asyncio.gather(*(_run(seat, shape, pad_id) for _ in range(seat.worker.slots))):
            if done.rows is None:
                raise BackendFailed(done.error or "the forward pass failed")
    # Once more, now that the shapes are known: what they cost from now on.
    for shape in {shapes[0], shapes[-1]} if shapes else ():
        seat.device.cost.observe((await _run(seat, shape, pad_id)).outcome)


def post(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """From any thread: call ``function`` in the loop. A loop that is closed has nobody left who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)


async def _run(seat: Seat, shape: tuple[int, int], pad_id: int) -> Done:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Done] = loop.create_future()

    def settle(done: Done) -> None:
        if not future.done():
            future.set_result(done)

    n, width = shape
    batch = TokenBatch(ids=np.full(shape, pad_id, np.int32), lengths=np.full(n, width, np.int32))
    seat.worker.submit(batch, lambda done: post(loop, settle, done))
    return await future
