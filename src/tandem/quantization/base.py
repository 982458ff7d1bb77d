"""The contract of a row codec: how rows are kept where bytes matter."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows


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
