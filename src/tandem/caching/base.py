"""The contract of an exact cache: entries by key, and a second level that may be slow, full or gone.

A cache that fails is a miss with a counter, never an error: what it can not give is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import Tier

Key: TypeAlias = bytes
"""16 bytes, made by ``keys.py`` from everything that a row depends on: equal keys, equal rows."""


class Entry(msgspec.Struct, frozen=True, eq=False):
    """What is kept of one text: its ``row`` float32 [d] as the backend gave it, neither cut nor normalised; its length
    in ``tokens``, so that a hit need not tokenize; the ``tier`` that computed it."""

    row: NDArray[np.float32]
    tokens: int
    tier: Tier


class EntryStore(Protocol):
    """A second level: Redis, a disk. No method raises for what goes wrong there: that is a miss, and is counted."""

    name: str

    async def get(self, keys: Sequence[Key]) -> list[Entry | None]:
        """One for each key, in order."""
        ...

    async def put(self, keys: Sequence[Key], entries: Sequence[Entry]) -> None:
        """Keep them, if that is possible."""
        ...

    async def clear(self) -> str:
        """Forget the rows of this model. Empty when that is done; else why it is not, to go on after "it"."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...

    def statistics(self) -> dict[str, float]:
        """Counters and gauges by name: hits, misses, errors, rejected (rows that were wrong), bytes, entries, ..."""
        ...

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        ...
