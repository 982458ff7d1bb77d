"""Rows as they are: nothing lost, four bytes a number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tandem.quantization.base import RowReader, check_stored
from tandem.types import Rows


class Float32Codec:
    """The bytes of the numbers, little end first, so that what one machine wrote another reads."""

    name = "float32"

    def row_bytes(self, dims: int) -> int:
        return 4 * dims

    def encode(self, rows: Rows) -> NDArray[np.uint8]:
        # May be a view of ``rows``: whoever keeps it copies it to where it is kept anyway.
        return np.ascontiguousarray(rows, "<f4").view(np.uint8)

    def decode(self, stored: NDArray[np.uint8], dims: int) -> Rows:
        check_stored(stored, 4 * dims)
        return np.array(stored.view("<f4"), order="C")

    def reader(self, stored: NDArray[np.uint8], dims: int) -> RowReader:
        check_stored(stored, 4 * dims)
        rows = stored.view("<f4")
        return lambda index: rows[index].copy()
