"""Rows as small integers with one scale a row: int16 in half the bytes of float32, int8 in a quarter.

A row is divided by the largest of its absolute values, so an outlier in one row costs no other row anything, and
nothing has to be calibrated or kept beside the rows. Symmetric, as embeddings lie around zero: an offset would cost a
sum in each dot product and buys nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tandem.quantization.base import RowReader, check_stored
from tandem.types import Rows

_SCALE_BYTES = 4


class _Scaled:
    """``codes = rint(limit * x / max|x|)``, then max|x| as float32; both little end first."""

    def __init__(self, name: str, kind: DTypeLike) -> None:
        self.name = name
        self._kind = np.dtype(kind)
        # -limit - 1 stays unused: a negated row has the negated codes.
        self._limit = np.float32(np.iinfo(self._kind).max)

    def row_bytes(self, dims: int) -> int:
        return self._kind.itemsize * dims + _SCALE_BYTES

    def encode(self, rows: Rows) -> NDArray[np.uint8]:
        """A row that holds a NaN or an infinity comes back as NaN throughout: no number is made up for it."""
        peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0.0).astype("<f4", copy=False)
        peaks[~np.isfinite(peaks)] = np.nan
        stored = np.empty((len(rows), self.row_bytes(rows.shape[1])), np.uint8)
        width = stored.shape[1] - _SCALE_BYTES
        # First to [-1, 1]: limit / peak would overflow for a tiny row. A row of zeros is divided by one.
        with np.errstate(invalid="ignore"):
            scaled = rows / np.where(peaks == 0.0, np.float32(1.0), peaks)
            stored[:, :width] = np.rint(scaled * self._limit).astype(self._kind).view(np.uint8)
        stored[:, width:] = peaks.view(np.uint8)
        return stored

    def decode(self, stored: NDArray[np.uint8], dims: int) -> Rows:
        codes, peaks = self._parts(stored, dims)
        # One pass, which widens and scales at once.
        rows: Rows = codes * (peaks / self._limit)
        return rows

    def reader(self, stored: NDArray[np.uint8], dims: int) -> RowReader:
        codes, peaks = self._parts(stored, dims)
        peak, limit, float32 = peaks[:, 0].item, float(self._limit), np.float32

        def read(index: int) -> NDArray[np.float32]:
            # In two steps: a product of mixed types goes through numpy's buffers, which costs one row a third more.
            # The scale is rounded to float32 where it meets the row, so the numbers are those of `decode`.
            row: NDArray[np.float32] = codes[index].astype(float32)
            row *= peak(index) / limit
            return row

        return read

    def _parts(self, stored: NDArray[np.uint8], dims: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Views of the codes, [n, d], and of the peaks, [n, 1]."""
        width = self._kind.itemsize * dims
        check_stored(stored, width + _SCALE_BYTES)
        return stored[:, :width].view(self._kind), stored[:, width:].view("<f4")


class Int16Codec(_Scaled):
    """Half the bytes, next to nothing lost: 1 - cosine is about 5e-10 for rows of a few hundred dimensions."""

    def __init__(self) -> None:
        super().__init__("int16", "<i2")


class Int8Codec(_Scaled):
    """A quarter of the bytes: 1 - cosine is about 3e-5 for rows of a few hundred dimensions."""

    def __init__(self) -> None:
        super().__init__("int8", np.int8)
