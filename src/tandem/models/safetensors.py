"""Safetensors files read in place: the file is mapped, a tensor is a view of it until it has to be converted.

Format: https://huggingface.co/docs/safetensors, "Format". Eight bytes of header length, a JSON header of names with
dtype, shape and offsets, then the tensors' bytes.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ModelBroken

_MAX_HEADER_BYTES = 100_000_000
# bfloat16 is read as the integer of its bits: numpy has no such type.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
FLOAT_DTYPES = tuple(_DTYPES)


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class SafetensorsFile:
    """One mapped file. The map lives as long as an array taken from it."""

    def __init__(self, path: Path) -> None:
        """Raises ModelBroken when the file can not be read, its header is damaged, or bytes are missing."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelBroken(f"{path}: can not be read: {error}") from error
        self._start, self._entries = _read_header(path, self._map)

    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """The format's own word: ``F32``, ``BF16``, ``I64``."""
        return self._entries[name].dtype

    def read(self, name: str, part: int = 0, parts: int = 1) -> NDArray[np.float32]:
        """The tensor as float32, or ``part`` of ``parts`` equal slices of its rows. Its dtype is of FLOAT_DTYPES.

        A float32 tensor is a read-only view of the map; any other is a converted copy.
        """
        entry = self._entries[name]
        begin = self._start + entry.data_offsets[0]
        stored = np.frombuffer(self._map, _DTYPES[entry.dtype], math.prod(entry.shape), begin).reshape(entry.shape)
        if parts > 1:
            size = entry.shape[0] // parts
            stored = stored[part * size : (part + 1) * size]
        if entry.dtype == "BF16":
            # A bfloat16 is the upper half of the float32 with the same value.
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32, copy=False)


def _read_header(path: Path, data: mmap.mmap) -> tuple[int, dict[str, _Entry]]:
    length = int.from_bytes(data[:8], "little")
    start = 8 + length
    if not 2 <= length <= _MAX_HEADER_BYTES or start > len(data):
        raise ModelBroken(f"{path}: not a safetensors file, or truncated inside its header")
    try:
        raw = msgspec.json.decode(data[8:start], type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
    except msgspec.MsgspecError as error:
        raise ModelBroken(f"{path}: the safetensors header is damaged: {error}") from error
    for name, entry in entries.items():
        _check(path, name, entry, len(data) - start)
    return start, entries


def _check(path: Path, name: str, entry: _Entry, data_bytes: int) -> None:
    begin, end = entry.data_offsets
    if not 0 <= begin <= end <= data_bytes or min(entry.shape, default=0) < 0:
        raise ModelBroken(f"{path}: truncated: tensor {name!r} ends at byte {end} of {data_bytes}")
    dtype = _DTYPES.get(entry.dtype)
    if dtype is not None and end - begin != math.prod(entry.shape) * dtype.itemsize:
        raise ModelBroken(f"{path}: tensor {name!r} has {end - begin} bytes, its shape {entry.shape} needs others")
