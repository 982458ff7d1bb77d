"""The contract of a vector index: nearest neighbours by cosine, with incremental change."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows

Ids: TypeAlias = NDArray[np.int64]
"""What the caller calls its rows by; from 0 up."""

NOTHING = -1
"""Stands for an id where there are fewer neighbours than were asked for; its cosine is -1."""


class VectorIndex(Protocol):
    """Rows by id. Rows need not be of length 1; what is kept and compared is their direction."""

    dims: int

    def __len__(self) -> int: ...

    def add(self, ids: Ids, rows: Rows) -> None:
        """Keep rows float32 [n, d] under ``ids`` int64 [n]; an id that is there is replaced. Raises ValueError for
        shapes that do not fit, negative ids, rows that are not finite or have no direction."""
        ...

    def remove(self, ids: Ids) -> int:
        """Forget them; how many were there."""
        ...

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        """The ``k`` nearest of each row: ids int64 [n, k] and cosines float32 [n, k], the best first."""
        ...

    def memory_bytes(self) -> int:
        """What it holds."""
        ...
