"""NumPy's .npy, version 1.0: float32 [n, d], little-endian, C order, rows in the input's order and nothing else.

A record without a vector is a row of NaN. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from tandem.bulk.base import Block, WriteOptions

HEADER_BYTES = 128


def npy_header(n: int, dimensions: int) -> bytes:
    """The first 128 bytes of a file of ``n`` rows. Its size does not depend on ``n``, so it can be written last."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {dimensions}), }}"
    prefix = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + text.encode("ascii").ljust(HEADER_BYTES - 11) + b"\n"


class NpyWriter:
    """``out`` must be able to seek: the count goes in front and is known at the end."""

    def __init__(self, options: WriteOptions) -> None:
        self._dimensions = options.dimensions

    def write(self, blocks: Iterable[Block], out: BinaryIO) -> None:
        n = 0
        out.write(npy_header(0, self._dimensions))
        for block in blocks:
            rows = np.ascontiguousarray(block.vectors, dtype="<f4")
            if block.missing.any():
                rows = np.where(block.missing[:, None], np.float32(np.nan), rows).astype("<f4")
            out.write(rows.data)
            n += len(rows)
        out.seek(0)
        out.write(npy_header(n, self._dimensions))
