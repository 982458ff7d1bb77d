"""Which entry goes when the budget is full.

The tenant that holds the most bytes pays, so one that stores without end drives out its own entries and no one else's.
Of its entries the oldest goes that nobody asked for since it came, or since it was last spared (the second chance of
Corbato's CLOCK): most entries of a semantic cache are never asked for, and a list by last use would let each of them
push out one that is.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from tandem.semantic.space import Entry, Space, cost

Queue: TypeAlias = OrderedDict[int, tuple[Space, Entry]]


class Ages:
    """Entries of all namespaces, by tenant, oldest first."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self._bytes: dict[str, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, space: Space, entry: Entry) -> None:
        self._queues.setdefault(space.namespace.tenant, OrderedDict())[entry.serial] = (space, entry)
        self._charge(space, cost(entry, space.index.dims))

    def remove(self, space: Space, entry: Entry) -> None:
        """Raises KeyError for an entry that is not there."""
        tenant = space.namespace.tenant
        del self._queues[tenant][entry.serial]
        self._charge(space, -cost(entry, space.index.dims))
        if not self._queues[tenant]:
            del self._queues[tenant], self._bytes[tenant]

    def victim(self) -> tuple[Space, Entry]:
        """The next to go; there must be one. Ends: each turn that spares an entry takes away its mark."""
        tenant = max(self._bytes, key=self._bytes.__getitem__)
        queue = self._queues[tenant]
        while True:
            serial, (space, entry) = next(iter(queue.items()))
            if not entry.asked:
                return space, entry
            entry.asked = False
            queue.move_to_end(serial)

    def serials(self) -> set[int]:
        return {serial for queue in self._queues.values() for serial in queue}

    def _charge(self, space: Space, size: int) -> None:
        tenant = space.namespace.tenant
        self._bytes[tenant] = self._bytes.get(tenant, 0) + size
        self.bytes += size
