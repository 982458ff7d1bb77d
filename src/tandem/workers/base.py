"""The contract of a worker: one device with one backend, computing ``slots`` batches side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import Backend
from tandem.memory import PoolStatistics
from tandem.types import Outcome, Packing, Tier, TokenBatch


class Done(msgspec.Struct, frozen=True):
    """How a batch ended: ``rows`` float32 [n, dims] (ids' shape and [hidden] for tokens), or None and ``error``, a
    sentence. ``lost``: the device went down with the batch, which says little of the batch: it may be run elsewhere.
    ``refused``: the batch was never run, as the worker is down or the host had no memory for it, which says nothing of
    the batch nor of the device."""

    outcome: Outcome
    rows: NDArray[np.float32] | None = None
    error: str | None = None
    lost: bool = False
    refused: bool = False


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rest must know of a worker's backend; the fields are ``Backend``'s."""

    backend: str
    tier: Tier
    dims: int
    hidden: int
    streams: int
    packing: Packing


def facts_of(backend: Backend) -> DeviceFacts:
    return DeviceFacts(
        backend=backend.name,
        tier=backend.tier,
        dims=backend.dims,
        hidden=backend.hidden,
        streams=backend.streams,
        packing=backend.packing,
    )


def outcome_of(device_id: str, batch: TokenBatch, started_s: float, finished_s: float, *, ok: bool) -> Outcome:
    """What became of a batch, and what it held."""
    lengths = batch.lengths.astype(np.int64)
    return Outcome(
        device_id=device_id,
        n=len(lengths),
        tokens=int(lengths.sum()),
        padded_tokens=batch.ids.size,
        sum_squares=int(lengths @ lengths),
        started_s=started_s,
        finished_s=finished_s,
        ok=ok,
    )


class Worker(Protocol):
    """Takes batches, calls back when each has ended. It never raises for a batch: a failure is a ``Done``.

    ``slots``: batches that it computes side by side. ``facts``: of its backend, the same after a restart.
    """

    device_id: str
    slots: int
    facts: DeviceFacts

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        """Queue a batch; ``on_done`` is called once, from any thread."""
        ...

    def watch(self, listener: Callable[[bool, str], None]) -> None:
        """Tell ``listener(up, why)`` when the device goes down and when it is back, from any thread. One listener. It
        hears that a device is down more than once: at once, when more is known, and after each start that fails; then
        ``why`` says when the next is due. A device that is down refuses what is submitted."""
        ...

    def restart(self, why: str) -> None:
        """The device's answers are bad: begin anew, if the worker can. What runs is answered as lost, what has not
        begun as refused. Returns at once; ``watch``'s listener hears of the rest."""
        ...

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """An array for a batch's ids, in memory that the device reads without copying it first. It goes back to where
        it came from by itself, once nobody holds it. Its content is undefined."""
        ...

    def statistics(self) -> PoolStatistics | None:
        """Of the pool that its inputs and outputs lie in; None where they are numpy's own."""
        ...

    def close(self, at_once: bool = False) -> None:
        """Finish what is queued, then free the device. Blocks. ``at_once``: without what is queued, and without what
        runs; it may be asked for while another thread waits for an ordinary close."""
        ...
