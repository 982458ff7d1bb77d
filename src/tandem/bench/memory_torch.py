"""The ways of allocating that need PyTorch; those on CUDA raise ConfigError where there is none.

``cudaMalloc`` is had through PyTorch with its caching switched off by ``PYTORCH_NO_CUDA_MEMORY_CACHING=1``, which must
be in the environment before PyTorch starts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from tandem.bench.memory_ways import Way, fill_buffer, pool_of, resident_bytes
from tandem.errors import ConfigError

DEVICE = "cuda:0"


def cpu_way(_budget_bytes: int) -> Way:
    """PyTorch keeps no cache on the CPU: under it is malloc, and cold and warm are the same."""
    # Waking threads to fill a buffer would be what is measured.
    torch.set_num_threads(1)
    return Way(
        take=lambda n: torch.empty(n, dtype=torch.uint8), give=id, fill=lambda t: t.fill_(1), held=resident_bytes
    )


def cuda_malloc_way(_budget_bytes: int) -> Way:
    _require_cuda()
    return Way(take=_on_cuda, give=id, fill=lambda t: t.fill_(1), held=_driver_bytes)


def cuda_warm_way(_budget_bytes: int) -> Way:
    _require_cuda()
    return Way(take=_on_cuda, give=id, fill=lambda t: t.fill_(1), held=_reserved_bytes)


def cuda_cold_way(_budget_bytes: int) -> Way:
    _require_cuda()
    return Way(
        take=_on_cuda,
        give=id,
        fill=lambda t: t.fill_(1),
        held=_reserved_bytes,
        reset=torch.cuda.empty_cache,
    )


def device_pool_way(budget_bytes: int) -> Way:
    _require_cuda()
    pool = pool_of("device", budget_bytes)
    return Way(
        take=pool.take,
        give=pool.give,
        fill=lambda block: block.view().fill_(1),
        held=_reserved_bytes,
        statistics=pool.statistics,
    )


def pinned_warm_way(_budget_bytes: int) -> Way:
    _require_cuda()
    return Way(
        take=lambda n: torch.empty(n, dtype=torch.uint8, pin_memory=True),
        give=id,
        fill=lambda t: t.fill_(1),
        held=resident_bytes,
    )


def pinned_pool_way(budget_bytes: int) -> Way:
    _require_cuda()
    pool = pool_of("pinned", budget_bytes)
    return Way(
        take=pool.take,
        give=pool.give,
        fill=lambda block: fill_buffer(block.view()),
        held=resident_bytes,
        statistics=pool.statistics,
    )


def tensor_peak_bytes(work: Callable[[], object]) -> int:
    """The most that tensors took while ``work`` ran, over what they had before: counted by PyTorch, to the byte."""
    if torch.cuda.is_available():
        torch.cuda.synchronize(DEVICE)
        before = torch.cuda.memory_allocated(DEVICE)
        torch.cuda.reset_peak_memory_stats(DEVICE)
        work()
        torch.cuda.synchronize(DEVICE)
        return torch.cuda.max_memory_allocated(DEVICE) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())), default=0)


def peak_device() -> str:
    """Where ``tensor_peak_bytes`` looks."""
    return DEVICE if torch.cuda.is_available() else "cpu"


def _on_cuda(nbytes: int) -> torch.Tensor:
    return torch.empty(nbytes, dtype=torch.uint8, device=DEVICE)


def _reserved_bytes() -> int:
    return torch.cuda.memory_reserved(DEVICE)


def _driver_bytes() -> int:
    free, total = torch.cuda.mem_get_info(DEVICE)
    return total - free


def _require_cuda() -> None:
    if not torch.cuda.is_available():
        raise ConfigError(f"PyTorch {torch.__version__} finds no CUDA device here")
