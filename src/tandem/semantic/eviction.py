"""Which entry goes when the budget is full.

What is of a model that is no longer served goes first, the oldest of all tenants' at the front: nobody can ask for it.
Then the tenant that holds the most bytes pays, so one that stores without end drives out its own entries and no one
else's. Of its entries the oldest goes that nobody asked for since it came, or since it was last spared (the second
chance of Corbato's CLOCK): most entries of a semantic cache are never asked for, and a list by last use would let each
of them push out one that is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeAlias

from tandem.semantic.space import Entry, Space, cost

Queue: TypeAlias = OrderedDict[int, tuple[Space, Entry]]
Owner: TypeAlias = str | None
"""A tenant; None stands for all whose entries are of a former model."""


class Ages:
    """Entries of all namespaces, by owner, oldest first."""

    def __init__(self) -> None:
        self._queues: dict[Owner, Queue] = {}
        self._bytes: dict[Owner, int] = {}
        self.bytes = 0

    @property
    def former_bytes(self) -> int:
        return self._bytes.get(None, 0)

    def add(self, space: Space, entry: Entry) -> None:
        self._queues.setdefault(_owner(space), OrderedDict())[entry.serial] = (space, entry)
        self._charge(_owner(space), cost(entry, space.index.dims))

    def remove(self, space: Space, entry: Entry) -> None:
        """Raises KeyError for an entry that is not there."""
        owner = _owner(space)
        del self._queues[owner][entry.serial]
        self._charge(owner, -cost(entry, space.index.dims))
        self._close(owner)

    def free(self, space: Space) -> None:
        """What a namespace holds that was closed is charged to nobody, from now on."""
        self._charge(_owner(space), -space.bytes)

    def forget(self, space: Space, serials: Iterable[int]) -> None:
        """Let go of entries of a namespace that was closed."""
        owner = _owner(space)
        queue = self._queues.setdefault(owner, OrderedDict())
        for serial in serials:
            queue.pop(serial, None)
        self._close(owner)

    def victim(self) -> tuple[Space, Entry]:
        """The next to go; there must be one. Ends: each turn that spares an entry takes away its mark."""
        owner: Owner = None if self.former_bytes else max(self._bytes, key=self._bytes.__getitem__)
        queue = self._queues[owner]
        while True:
            serial, (space, entry) = next(iter(queue.items()))
            if space.is_closed:
                del queue[serial]
            elif entry.asked:
                entry.asked = False
                queue.move_to_end(serial)
            else:
                return space, entry

    def _charge(self, owner: Owner, size: int) -> None:
        self._bytes[owner] = self._bytes.get(owner, 0) + size
        self.bytes += size

    def _close(self, owner: Owner) -> None:
        if not self._queues.get(owner):
            self._queues.pop(owner, None)
            self._bytes.pop(owner, None)


def _owner(space: Space) -> Owner:
    return None if space.is_former else space.namespace.tenant
