"""Snapshots of indexes: one file, whole or not there, that is proven before a byte of it is used.

::

    8 bytes    magic
    parts      one behind the other, as raw bytes
    contents   JSON: version, kind, dims, storage, and each part's name, shape, type and place
    4 bytes    length of the contents, little-endian
    16 bytes   BLAKE2b of all before
    8 bytes    magic again: a file that was cut off ends in something else

The contents come last, so that a part whose size nobody knows beforehand is written as it comes. The hash is no luxury:
the graph's own library checks nothing, and reads wild memory from a file of which one byte has changed. It guards
against damage and not against malice: who can write here should be trusted as who can write code.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.vectors.base import IndexOptions, SnapshotBroken, Storage

VERSION = 2

_MAGIC = b"TANDEMVX"
_TAIL = struct.Struct("<I16s8s")
_DIGEST_BYTES = 16
_CHUNK_BYTES = 1 << 20
_TYPES = frozenset({"int8", "uint8", "int64", "float16", "float32"})


class Part(msgspec.Struct, frozen=True):
    """One array: ``dtype`` by numpy's name, ``offset`` from the beginning of the file."""

    name: str
    dtype: str
    shape: list[int]
    offset: int

    @property
    def nbytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


class Contents(msgspec.Struct, frozen=True):
    """What a snapshot says of itself."""

    version: int
    kind: str
    dims: int
    storage: Storage
    parts: list[Part]


class SnapshotWriter:
    """Writes beside ``path`` and takes its place when all is on the disk; on any error ``path`` stays as it was."""

    def __init__(self, path: Path, kind: str, options: IndexOptions) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.{os.getpid()}.part")
        self._kind = kind
        self._options = options
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._offset = 0
        self._parts: list[Part] = []

    def __enter__(self) -> SnapshotWriter:
        self._file = open(self._part, "wb")
        self._write(_MAGIC)
        return self

    def part(self, name: str, array: NDArray[Any]) -> None:
        """Append an array, C-contiguous."""
        self._parts.append(Part(name, array.dtype.name, list(array.shape), self._offset))
        view = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(view), _CHUNK_BYTES):
            self._write(view[start : start + _CHUNK_BYTES])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._file.close()
            with suppress(FileNotFoundError):
                self._part.unlink()

    def _finish(self) -> None:
        options = self._options
        contents = Contents(VERSION, self._kind, options.dims, options.storage, self._parts)
        encoded = msgspec.json.encode(contents)
        self._write(encoded)
        self._write(struct.pack("<I", len(encoded)))
        self._file.write(self._digest.digest() + _MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._part, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)
        self._offset += len(data)


class Snapshot:
    """A proven file. Its arrays are read-only views of the mapped file."""

    def __init__(self, contents: Contents, data: memoryview) -> None:
        self.contents = contents
        self._data = data

    def has(self, name: str) -> bool:
        """Whether there is such a part."""
        return any(part.name == name for part in self.contents.parts)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Raises SnapshotBroken when there is no such part."""
        for part in self.contents.parts:
            if part.name == name:
                return np.frombuffer(
                    self._data[part.offset : part.offset + part.nbytes], dtype=np.dtype(part.dtype)
                ).reshape(part.shape)
        raise SnapshotBroken(f"the snapshot has no part {name!r}")


def read_snapshot(path: Path, options: IndexOptions) -> Snapshot:
    """The snapshot at ``path``. Raises SnapshotBroken when it is none or does not hold rows as ``options`` wants them;
    FileNotFoundError when there is nothing, and OSError when it can not be read."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < len(_MAGIC) + _TAIL.size:
            raise SnapshotBroken(f"{path} is no snapshot of an index: it is too short")
        # Never closed: it ends with the last array that lies in it.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = memoryview(mapped)
    return Snapshot(_proven(path, data, options), data)


def _proven(path: Path, data: memoryview, options: IndexOptions) -> Contents:
    length, digest, magic = _TAIL.unpack(data[-_TAIL.size :])
    if data[: len(_MAGIC)] != _MAGIC or magic != _MAGIC:
        raise SnapshotBroken(f"{path} is no snapshot of an index, or was cut off")
    end = len(data) - _TAIL.size
    found = hashlib.blake2b(data[: end + 4], digest_size=_DIGEST_BYTES).digest()
    if found != digest or length > end - len(_MAGIC):
        raise SnapshotBroken(f"{path} has changed since it was written: its checksum is another")
    try:
        contents = msgspec.json.decode(data[end - length : end], type=Contents)
    except msgspec.DecodeError as error:
        raise SnapshotBroken(f"{path} is of another version: {error}") from error
    _check(path, contents, options, end - length)
    return contents


def _check(path: Path, contents: Contents, options: IndexOptions, end: int) -> None:
    if contents.version != VERSION:
        raise SnapshotBroken(f"{path} is of version {contents.version}; this is version {VERSION}")
    for name, held, wanted in (
        ("dims", contents.dims, options.dims),
        ("storage", contents.storage, options.storage),
    ):
        if held != wanted:
            raise SnapshotBroken(f"{path} holds rows of {name} {held}, not {wanted}")
    for part in contents.parts:
        fits = part.dtype in _TYPES and all(size >= 0 for size in part.shape)
        if not fits or not len(_MAGIC) <= part.offset <= part.offset + part.nbytes <= end:
            raise SnapshotBroken(f"{path} has a part {part.name!r} that lies outside it")
