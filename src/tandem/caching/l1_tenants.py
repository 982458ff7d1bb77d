"""Who holds how much, where no tenant may hold more than a share."""

from __future__ import annotations

import numpy as np

from tandem.caching.eviction import Ring
from tandem.caching.l1_index import column


class Tenants:
    """The slots of each tenant, oldest first. A tenant that holds nothing is forgotten."""

    SLOT_BYTES = 16
    TENANT_BYTES = 500
    """About what one tenant costs in Python objects."""

    def __init__(self, slots: int, share: float) -> None:
        self._most = max(1, int(slots * share))
        self._links = column(slots + 2, np.int32), column(slots + 2, np.int32)
        self._owner = column(slots + 2, np.int64)
        self._numbers: dict[str, int] = {}
        self._rings: dict[int, tuple[str, Ring]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._rings)

    def full(self, tenant: str) -> Ring | None:
        """The tenant's slots, if it may not have one more."""
        number = self._numbers.get(tenant, 0)
        ring = self._rings[number][1] if number else None
        return ring if ring is not None and ring.count >= self._most else None

    def add(self, tenant: str, slot: int) -> None:
        number = self._numbers.get(tenant, 0)
        if not number:
            # Numbers are not used twice: 64 bits of them outlast any process.
            self._last = number = self._last + 1
            self._numbers[tenant] = number
            self._rings[number] = tenant, Ring(*self._links)
        self._owner[slot] = number
        self._rings[number][1].push(slot)

    def remove(self, slot: int) -> None:
        number = self._owner[slot]
        tenant, ring = self._rings[number]
        ring.remove(slot)
        if not ring.count:
            del self._rings[number], self._numbers[tenant]

    def check(self, live: set[int]) -> list[str]:
        """What its books disagree on, if ``live`` slots are held."""
        held = [slot for _, ring in self._rings.values() for slot in ring]
        faults = [] if len(held) == len(live) and set(held) == live else [f"tenants hold {len(held)} of {len(live)}"]
        return faults + [
            f"{name!r} holds {ring.count}" for name, ring in self._rings.values() if ring.count > self._most
        ]
