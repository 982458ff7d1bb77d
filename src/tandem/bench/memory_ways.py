"""The ways of allocating that ``tandem bench memory`` sets side by side. Each runs in a process of its own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tandem.clock import SystemClock
from tandem.memory import STORES, Pool, PoolOptions, PoolStatistics, StoreOptions
from tandem.registry import Registry

PAGE = os.sysconf("SC_PAGE_SIZE")


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """``take`` bytes and ``give`` them back; ``fill`` writes all of them, as a use would. ``held``: bytes that the
    process has from the system or the device now. ``reset``: done before each round that is timed."""

    take: Callable[[int], Any]
    give: Callable[[Any], object]
    fill: Callable[[Any], object]
    held: Callable[[], int]
    reset: Callable[[], object] = lambda: None
    statistics: Callable[[], PoolStatistics] | None = None


def resident_bytes() -> int:
    """Of this process, shared pages counted."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def fill_buffer(buffer: Any) -> None:
    np.frombuffer(buffer, np.uint8).fill(1)


def numpy_way(_budget_bytes: int) -> Way:
    """What Python code does without thinking; under it is the C library's malloc. Dropping an array frees it."""
    return Way(take=lambda n: np.empty(n, np.uint8), give=id, fill=lambda a: a.fill(1), held=resident_bytes)


def mmap_way(_budget_bytes: int) -> Way:
    """A mapping from the system for every buffer."""
    return Way(take=lambda n: mmap.mmap(-1, n), give=mmap.mmap.close, fill=fill_buffer, held=resident_bytes)


def memfd_way(_budget_bytes: int) -> Way:
    """A piece of shared memory for every buffer, as one would pass arrays to a process without a pool."""

    def take(nbytes: int) -> tuple[int, mmap.mmap]:
        fd = os.memfd_create("tandem-bench")
        os.ftruncate(fd, nbytes)
        return fd, mmap.mmap(fd, nbytes)

    def give(piece: tuple[int, mmap.mmap]) -> None:
        piece[1].close()
        os.close(piece[0])

    return Way(take=take, give=give, fill=lambda piece: fill_buffer(piece[1]), held=resident_bytes)


def pool_of(store: str, budget_bytes: int) -> Pool:
    """As in a service: the budget is taken at start."""
    return Pool(STORES.get(store)(StoreOptions()), PoolOptions(budget_bytes=budget_bytes), SystemClock())


def host_pool_way(budget_bytes: int) -> Way:
    return _host_pool("host", budget_bytes)


def shared_pool_way(budget_bytes: int) -> Way:
    return _host_pool("shared", budget_bytes)


def array_pool_way(budget_bytes: int) -> Way:
    """As numpy's way: an array, which goes back when it is dropped."""
    pool = pool_of("host", budget_bytes)
    return Way(
        take=lambda n: pool.array((n,), np.uint8),
        give=id,
        fill=lambda a: a.fill(1),
        held=resident_bytes,
        statistics=pool.statistics,
    )


def _host_pool(store: str, budget_bytes: int) -> Way:
    pool = pool_of(store, budget_bytes)
    return Way(
        take=pool.take,
        give=pool.give,
        fill=lambda block: fill_buffer(block.view()),
        held=resident_bytes,
        statistics=pool.statistics,
    )


WAYS: Registry[Callable[[int], Way]] = Registry("way of allocating")
# Each is made with the budget of the pools.
WAYS.register("numpy.empty (malloc)", "tandem.bench.memory_ways:numpy_way")
WAYS.register("mmap each time", "tandem.bench.memory_ways:mmap_way")
WAYS.register("memfd each time", "tandem.bench.memory_ways:memfd_way")
WAYS.register("torch on the CPU (malloc)", "tandem.bench.memory_torch:cpu_way")
WAYS.register("tandem pool, host", "tandem.bench.memory_ways:host_pool_way")
WAYS.register("tandem pool, arrays", "tandem.bench.memory_ways:array_pool_way")
WAYS.register("tandem pool, shared", "tandem.bench.memory_ways:shared_pool_way")
WAYS.register("cudaMalloc each time", "tandem.bench.memory_torch:cuda_malloc_way")
WAYS.register("torch on CUDA, cold", "tandem.bench.memory_torch:cuda_cold_way")
WAYS.register("torch on CUDA, warm", "tandem.bench.memory_torch:cuda_warm_way")
WAYS.register("tandem pool, device", "tandem.bench.memory_torch:device_pool_way")
WAYS.register("torch pinned, warm", "tandem.bench.memory_torch:pinned_warm_way")
WAYS.register("tandem pool, pinned", "tandem.bench.memory_torch:pinned_pool_way")
