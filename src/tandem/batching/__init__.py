"""Batch policies by name."""

from __future__ import annotations

from collections.abc import Callable

from tandem.batching.base import BatchLimits, BatchPolicy, Plan, QueueView
from tandem.registry import Registry

POLICIES: Registry[Callable[[BatchLimits], BatchPolicy]] = Registry("batch policy")
POLICIES.register("memory_aware", "tandem.batching.memory_aware:MemoryAwarePolicy")
POLICIES.register("fixed", "tandem.batching.fixed:FixedPolicy")

__all__ = ["POLICIES", "BatchLimits", "BatchPolicy", "Plan", "QueueView"]
