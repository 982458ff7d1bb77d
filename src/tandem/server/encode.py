"""Embeddings to bytes: the most expensive thing that a fast embedding server does in Python.

Rows are float32. As JSON text each number gets the fewest digits that read back as the same float32 (orjson on numpy:
8 us a row of 384; through Python floats it is 11 to 14 us and 70 % more bytes, because the digits are a float64's).
base64 holds the little-endian float32 bytes, 1 us a row.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

Row: TypeAlias = NDArray[np.float32]
RowEncoder: TypeAlias = Callable[[Row], bytes]

# Encoders hold the GIL, so a thread would not free the event loop: a long reply is encoded in slices instead, and
# between slices other callers get their turn. This much JSON takes half a millisecond.
SLICE_BYTES = 256 * 1024


def as_json(row: Row) -> bytes:
    """A JSON array; of a two-dimensional array, an array of arrays. The array must be C-contiguous."""
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def as_base64(row: Row) -> bytes:
    """A JSON string with the base64 of the row's little-endian float32 bytes."""
    return b'"%b"' % binascii.b2a_base64(row.astype("<f4", copy=False).data, newline=False)


async def join(pieces: Iterable[bytes]) -> bytes:
    """The pieces joined by commas, made as ``collect`` makes them."""
    return b",".join(await collect(pieces))


async def collect(pieces: Iterable[bytes]) -> list[bytes]:
    """The pieces. Each is made when it is asked for, and other callers run between slices."""
    made: list[bytes] = []
    size = 0
    for piece in pieces:
        made.append(piece)
        size += len(piece)
        if size >= SLICE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return made
