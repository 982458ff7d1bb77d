"""Ways to the device and back. A lane carries one batch at a time: a block of whole numbers there, rows back.

On CUDA each lane has a stream of its own for copies, and all lanes share one stream for computing. So batches are
computed one after the other, in the order in which they were launched, while the next one's block is on its way there
and the last one's rows are on theirs back. Rejected: a computing stream a lane. Two batches that share a GPU which one
of them fills both end later, and CUDA graphs that share memory must not run side by side.

Staging lies in pools (``tandem.memory``), pinned on the host: in a steady state nothing is allocated here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tandem.clock import SystemClock
from tandem.memory import STORES, Block, Pool, PoolOptions, StoreOptions

RESERVE_BYTES = 16 << 20
"""Taken at start, on the host and on the device each: rows of some thousand texts, or of some thousand tokens. What
does not fit in it makes the pool grow once."""
_BUDGET_BYTES = 1 << 30


class Lane(Protocol):
    """Called in this order: ``stage``, ``send``, within ``computing`` ``fetch``, then ``result``. After a failure
    ``abandon``, whatever came before."""

    def stage(self, count: int) -> NDArray[np.int32]:
        """int32 [count] to fill. Raises MemoryExhausted."""
        ...

    def send(self) -> Tensor:
        """What was staged, on the device; it is there for what is computed within ``computing``."""
        ...

    def computing(self) -> AbstractContextManager[None]: ...

    def fetch(self, rows: Tensor) -> None:
        """Begin to bring ``rows`` back. What is computed next may overwrite them."""
        ...

    def result(self) -> NDArray[np.float32]:
        """Wait for the rows: float32, the caller's own. Raises RuntimeError when the device has failed meanwhile."""
        ...

    def abandon(self) -> None: ...


class Pools:
    """Where lanes have their memory: ``host``, pinned where there is a GPU, and ``device``."""

    def __init__(self, device: torch.device) -> None:
        """Raises MemoryExhausted when the memory is not there."""
        options = StoreOptions(device=str(device))
        sizes = PoolOptions(budget_bytes=_BUDGET_BYTES, reserve_bytes=RESERVE_BYTES)
        cuda = device.type == "cuda"
        self.host = Pool(STORES.get("pinned" if cuda else "host")(options), sizes, SystemClock())
        self.device = Pool(STORES.get("device")(options), sizes, SystemClock()) if cuda else self.host

    def close(self) -> None:
        for pool in {id(pool): pool for pool in (self.host, self.device)}.values():
            pool.close()


class _Held:
    """Blocks that a batch holds until it is through."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Pool, Block]] = []

    def take(self, pool: Pool, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = torch.Size(shape).numel()
        block = pool.take(size * dtype.itemsize)
        self._blocks.append((pool, block))
        view = block.view()
        flat = torch.frombuffer(view, dtype=dtype, count=size) if pool.store.on_host else view.view(dtype)
        return flat.view(shape)

    def give(self) -> None:
        for pool, block in self._blocks:
            pool.give(block)
        self._blocks.clear()

    def forget(self) -> None:
        """A device that is gone may still read them, or never will: nobody can say, so they are used no more."""
        self._blocks.clear()


class HostLane:
    """The device is this CPU: nothing moves, and nothing is under way when a call returns."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._held = _Held()
        self._ints = torch.empty(0, dtype=torch.int32)
        self._rows = np.empty(0, np.float32)

    def stage(self, count: int) -> NDArray[np.int32]:
        self._ints = self._held.take(self._pools.host, (count,), torch.int32)
        array: NDArray[np.int32] = self._ints.numpy()
        return array

    def send(self) -> Tensor:
        return self._ints

    def computing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def fetch(self, rows: Tensor) -> None:
        self._rows = np.array(rows.float().numpy())

    def result(self) -> NDArray[np.float32]:
        self._held.give()
        return self._rows

    def abandon(self) -> None:
        self._held.give()


class CudaLane:
    """A GPU at the other end."""

    def __init__(self, pools: Pools, device: torch.device, compute: torch.cuda.Stream) -> None:
        self._pools = pools
        self._device = device
        self._compute = compute
        self._copies = torch.cuda.Stream(device)
        self._sent, self._ready = torch.cuda.Event(), torch.cuda.Event()
        # Waiting asleep, not spinning: the core that it would burn feeds the GPU.
        self._back = torch.cuda.Event(blocking=True)
        self._held = _Held()
        self._staged = self._there = self._rows = torch.empty(0, dtype=torch.int32)

    def stage(self, count: int) -> NDArray[np.int32]:
        self._staged = self._held.take(self._pools.host, (count,), torch.int32)
        self._there = self._held.take(self._pools.device, (count,), torch.int32)
        array: NDArray[np.int32] = self._staged.numpy()
        return array

    def send(self) -> Tensor:
        with torch.cuda.stream(self._copies):
            self._there.copy_(self._staged, non_blocking=True)
            self._sent.record(self._copies)
        return self._there

    @contextmanager
    def computing(self) -> Iterator[None]:
        self._compute.wait_event(self._sent)
        with torch.cuda.stream(self._compute):
            yield

    def fetch(self, rows: Tensor) -> None:
        # A copy on the device first: these rows are the allocator's or a graph's, and used again by what comes next.
        kept = self._held.take(self._pools.device, tuple(rows.shape), torch.float32)
        kept.copy_(rows)
        self._ready.record(self._compute)
        self._copies.wait_event(self._ready)
        self._rows = self._held.take(self._pools.host, tuple(rows.shape), torch.float32)
        with torch.cuda.stream(self._copies):
            self._rows.copy_(kept, non_blocking=True)
            self._back.record(self._copies)

    def result(self) -> NDArray[np.float32]:
        self._back.synchronize()
        rows: NDArray[np.float32] = np.array(self._rows.numpy())
        self._held.give()
        return rows

    def abandon(self) -> None:
        with suppress(RuntimeError):
            torch.cuda.synchronize(self._device)
            self._held.give()
        self._held.forget()


def make_lanes(count: int, pools: Pools, device: torch.device, compute: torch.cuda.Stream | None) -> list[Lane]:
    """``compute``: the stream on which all lanes' batches are computed; None where the device is the CPU."""
    if compute is None:
        return [HostLane(pools) for _ in range(count)]
    return [CudaLane(pools, device, compute) for _ in range(count)]
