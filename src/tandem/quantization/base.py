"""The contract of a row codec: how rows are kept where bytes matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows

RowReader: TypeAlias = Callable[[int], NDArray[np.float32]]
"""The number of a row to that row, float32 [d], a copy."""


class RowCodec(Protocol):
    """Rows to bytes of a fixed length and back. Cosines survive as far as the codec's page says."""

    name: str

    def row_bytes(self, dims: int) -> int:
        """Bytes of one row."""
        ...

    def encode(self, rows: Rows) -> NDArray[np.uint8]:
        """float32 [n, d] to uint8 [n, row_bytes], C-contiguous."""
        ...

    def decode(self, stored: NDArray[np.uint8], dims: int) -> Rows:
        """uint8 [n, row_bytes] to float32 [n, d], C-contiguous and owned by the caller. Raises ValueError for another
        width."""
        ...

    def reader(self, stored: NDArray[np.uint8], dims: int) -> RowReader:
        """Reads single rows of ``stored``, uint8 [n, row_bytes], as they are at that moment: what must be found out
        about an array is found out once. Raises ValueError for another width."""
        ...


def check_stored(stored: NDArray[np.uint8], width: int) -> None:
    """Raises ValueError unless ``stored`` is uint8 [n, width]."""
    if stored.dtype != np.uint8 or stored.ndim != 2 or stored.shape[1] != width:
        raise ValueError(f"stored rows are uint8 [n, {width}], not {stored.dtype} {list(stored.shape)}")
