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

# How often a worker may go down while it is warmed, and how long until it is back.
_DOWNS, _BACK_S = 2, 30.0
# A batch that any device can run.
_TRIAL = (1, 16)


async def warm(seat: Seat, shapes: Sequence[tuple[int, int]], pad_id: int) -> None:
    """Run a batch of each shape (n, s) on every stream of a device; once more where its worker goes down meanwhile.
    Raises BackendFailed when one fails."""
    for shape in shapes:
        await asyncio.gather(*(_sure(seat, shape, pad_id) for _ in range(seat.worker.slots)))
    # Once more, now that the shapes are known: what they cost from now on.
    for shape in {shapes[0], shapes[-1]} if shapes else ():
        seat.device.cost.observe((await _run(seat, shape, pad_id)).outcome)


def try_out(seat: Seat, pad_id: int, on_done: Callable[[Done], None]) -> None:
    """Have the device run a short batch that is known to be good."""
    seat.worker.submit(_batch(_TRIAL, pad_id), on_done)


def post(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """From any thread: call ``function`` in the loop. A loop that is closed has nobody left who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)


async def _sure(seat: Seat, shape: tuple[int, int], pad_id: int) -> None:
    for _ in range(1 + _DOWNS):
        done = await _run(seat, shape, pad_id)
        if done.rows is not None:
            return
        if not (done.lost or done.refused):
            break
        try:
            await seat.back(_BACK_S)
        except TimeoutError:
            break
    raise BackendFailed(done.error or "the forward pass failed")


async def _run(seat: Seat, shape: tuple[int, int], pad_id: int) -> Done:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Done] = loop.create_future()

    def settle(done: Done) -> None:
        if not future.done():
            future.set_result(done)

    seat.worker.submit(_batch(shape, pad_id), lambda done: post(loop, settle, done))
    return await future


def _batch(shape: tuple[int, int], pad_id: int) -> TokenBatch:
    n, width = shape
    return TokenBatch(ids=np.full(shape, pad_id, np.int32), lengths=np.full(n, width, np.int32))
