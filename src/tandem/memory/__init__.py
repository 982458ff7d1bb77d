"""Memory: stores by name, and the pool over any of them."""

from __future__ import annotations

from collections.abc import Callable

from tandem.memory.base import Block, Fence, PoolOptions, PoolStatistics, Region, Store, StoreOptions
from tandem.memory.pool import Pool
from tandem.registry import Registry

STORES: Registry[Callable[[StoreOptions], Store]] = Registry("memory store")
STORES.register("host", "tandem.memory.stores:HostStore")
STORES.register("shared", "tandem.memory.stores:SharedStore")
STORES.register("pinned", "tandem.memory.torch_stores:PinnedStore")
STORES.register("device", "tandem.memory.torch_stores:DeviceStore")

__all__ = [
    "STORES",
    "Block",
    "Fence",
    "Pool",
    "PoolOptions",
    "PoolStatistics",
    "Region",
    "Store",
    "StoreOptions",
]
