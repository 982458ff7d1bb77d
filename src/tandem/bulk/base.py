"""The contracts of bulk embedding: what a format's reader gives and what a format's writer takes.

A reader turns a file into batches of records, the same batches from the same position every time. A writer takes
records in one of two neutral shapes (JSON objects or Arrow columns), so N readers and M writers need no N x M pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import JobError
from tandem.types import Rows

if TYPE_CHECKING:
    from arro3.core import RecordBatch, Schema

MAX_RECORD_BYTES = 64 << 20
"""A longer line or CSV field is refused: it is a broken file far more often than a text."""

Mask: TypeAlias = NDArray[np.bool_]
"""bool [n], one entry a record."""


class Position(msgspec.Struct, frozen=True):
    """Where a batch ends and the next begins: records before it, its byte offset, its 1-based line number."""

    records: int = 0
    offset: int = 0
    line: int = 1


START = Position()


class Window(msgspec.Struct, frozen=True):
    """How much goes to the engine at once. 2,048 texts let it sort by length; the bytes bound the memory."""

    records: int = 2048
    size_bytes: int = 32 << 20


WINDOW = Window()


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``column`` None picks one. ``reserved`` is the output column that the input must not have, None for no such rule.

    ``learn`` asks for the types of every column, which only JSON Lines has to find out; ``types`` hands back what was
    learned before (see ``Reader.types``).
    """

    column: str | None = None
    reserved: str | None = None
    learn: bool = False
    types: dict[str, Any] | None = None
    window: Window = WINDOW


@dataclass(frozen=True)
class Source:
    """The input: a file that can be read again, or a stream that can not."""

    name: str
    path: Path | None = None
    stream: BinaryIO | None = None

    def open_at(self, offset: int) -> BinaryIO:
        """Bytes from ``offset`` on. Raises JobError when the file can not be opened."""
        if self.path is None:
            assert self.stream is not None, "a source is a file or a stream"
            assert offset == 0, "a stream is read once, from its start"
            return self.stream
        try:
            # The caller closes it, when its generator ends.
            file = open(self.path, "rb", buffering=1 << 20)  # noqa: SIM115
            file.seek(offset)
        except OSError as error:
            raise JobError(f"can not read {self.name}: {error.strerror}") from error
        return file


class Records(Protocol):
    """The other columns of a batch, in the form that its reader has them. What could not be parsed is an empty row."""

    def __len__(self) -> int: ...

    def keep(self, mask: Mask) -> Records:
        """Only the records where ``mask`` is true, in order."""
        ...

    def json_objects(self) -> list[bytes]:
        """One JSON object a record, UTF-8, without a line end."""
        ...

    def arrow(self) -> list[RecordBatch]:
        """The same as Arrow columns under the reader's schema, in one or more pieces."""
        ...


@dataclass(frozen=True)
class Batch:
    """Consecutive records. ``texts[i]`` is None where ``reasons[i]`` says what is wrong; ``places`` are 1-based."""

    texts: list[str | None]
    reasons: dict[int, str]
    places: Sequence[int]
    records: Records
    end: Position
    unit: str = "line"

    def where(self, index: int) -> str:
        return f"{self.unit} {self.places[index]}"


class Reader(Protocol):
    """One pass or more over an input; ``column`` is the text column that was chosen."""

    column: str
    types: dict[str, Any] | None

    def batches(self, start: Position = START) -> Iterator[Batch]:
        """Batches from ``start``, an earlier batch's end. Raises JobError for what no row can be blamed for."""
        ...

    def schema(self) -> Schema:
        """The Arrow schema of ``Records.arrow``."""
        ...


@dataclass(frozen=True)
class Block:
    """What a writer takes: records, float32 [n, d], and which of them have no vector."""

    records: Records
    vectors: Rows
    missing: Mask


@dataclass(frozen=True)
class WriteOptions:
    """``record_bytes`` is the average size of a record as far as it is known; it bounds what a writer holds."""

    column: str
    dimensions: int
    schema: Callable[[], Schema]
    record_bytes: int = 1024


class Writer(Protocol):
    """Writes a whole output. It pulls, because Parquet's encoder does."""

    def write(self, blocks: Iterable[Block], out: BinaryIO) -> None:
        """Write all blocks; what ``blocks`` or ``out`` raise goes through. ``out`` is open for writing at byte 0."""
        ...


class ReaderFactory(Protocol):
    """Opens an input. Raises JobError when it is not of the format or has no usable text column."""

    def __call__(self, source: Source, options: ReadOptions) -> Reader: ...


class WriterFactory(Protocol):
    def __call__(self, options: WriteOptions) -> Writer: ...
