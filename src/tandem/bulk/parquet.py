"""Parquet through arro3, the Python face of Rust's arrow and parquet: 33 MB where pyarrow is 170.

Reads and writes row group by row group. Two habits of arro3 shape this file: its writer pulls from an iterator, and
an error raised inside that pull, or by the file it writes to, becomes a Rust panic with a backtrace on stderr. So both
are caught on our side, kept, and raised again when arro3 has returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema, fixed_size_list_array
from arro3.io import read_parquet, write_ndjson, write_parquet

from tandem.bulk.arrow import arrow_errors
from tandem.bulk.base import START, Batch, Block, Mask, Position, ReadOptions, Source, WriteOptions
from tandem.bulk.columns import check_reserved, choose_column, text_fault
from tandem.errors import JobError, TandemError

_READ_ROWS = 256
"""Rows decoded at a time. Small, because a row may carry an image; 2,048 small rows are eight of these."""

_ROW_GROUP_BYTES = 64 << 20
_ROW_GROUP_ROWS = (256, 1 << 16)

_MAGIC = b"PAR1"


class ParquetReader:
    """Column types stay what they are."""

    types: dict[str, Any] | None = None

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        self._schema = self._open().schema
        names = self._schema.names
        strings = [name for name, kind in zip(names, self._schema.types, strict=True) if _is_text(kind)]
        self.column = choose_column(source.name, options.column, names, strings)
        check_reserved(source.name, options.reserved, names)

    def batches(self, start: Position = START) -> Iterator[Batch]:
        window = self._options.window
        pieces: list[RecordBatch] = []
        rows = size_bytes = 0
        first = start.records
        for piece in self._pieces(start.records, window.records):
            pieces.append(piece)
            rows += piece.num_rows
            size_bytes += piece.nbytes
            if rows >= window.records or size_bytes >= window.size_bytes:
                yield self._batch(pieces, first, rows)
                first += rows
                pieces, rows, size_bytes = [], 0, 0
        if pieces:
            yield self._batch(pieces, first, rows)

    def schema(self) -> Schema:
        fields = [self._schema.field(index) for index in range(len(self._schema))]
        return Schema([_parquet_field(field) for field in fields], metadata=self._schema.metadata)

    def _open(self) -> RecordBatchReader:
        source = self._source
        if source.path is None:
            raise JobError("Parquet is read from its end, so it can not come through a pipe; save it to a file first")
        with source.open_at(0) as file:
            head = file.read(4)
            file.seek(max(-4, -_size(file)), 2)
            tail = file.read(4)
        if head == b"PARE" or tail == b"PARE":
            raise JobError(f"{source.name} is encrypted Parquet, which Tandem does not read")
        if head != _MAGIC:
            raise JobError(f"{source.name} is not Parquet: it does not start with {_MAGIC.decode()}")
        # A cut-off file is the common fault, and arro3 would panic over it.
        if tail != _MAGIC:
            raise JobError(f"{source.name} is cut off: it does not end with {_MAGIC.decode()}")
        with arrow_errors(f"{source.name} is damaged"):
            return read_parquet(source.path, batch_size=_READ_ROWS)

    def _pieces(self, skip: int, at_most: int) -> Iterator[RecordBatch]:
        """All rows after ``skip``. arro3 can not seek, but decoding is hundreds of times faster than a model."""
        batches = iter(self._open())
        while True:
            with arrow_errors(f"{self._source.name} is damaged"):
                batch = next(batches, None)
            if batch is None:
                return
            skipped = min(skip, batch.num_rows)
            skip -= skipped
            for offset in range(skipped, batch.num_rows, at_most):
                yield batch.slice(offset, min(at_most, batch.num_rows - offset))

    def _batch(self, pieces: list[RecordBatch], first: int, rows: int) -> Batch:
        texts: list[str | None] = []
        for piece in pieces:
            texts += piece.column(self.column).to_pylist()
        reasons = {index: fault for index, text in enumerate(texts) if (fault := text_fault(text)) is not None}
        for index in reasons:
            texts[index] = None
        places = range(first + 1, first + rows + 1)
        return Batch(texts, reasons, places, ParquetRecords(pieces, self.schema()), Position(first + rows), unit="row")


class ParquetRecords:
    """Pieces of the input, as they were read."""

    def __init__(self, pieces: list[RecordBatch], schema: Schema) -> None:
        self._pieces = pieces
        self._schema = schema

    def __len__(self) -> int:
        return sum(piece.num_rows for piece in self._pieces)

    def keep(self, mask: Mask) -> ParquetRecords:
        pieces, offset = [], 0
        for piece in self._pieces:
            wanted = np.flatnonzero(mask[offset : offset + piece.num_rows]).astype(np.uint32)
            offset += piece.num_rows
            pieces.append(piece.take(Array.from_numpy(wanted)))
        return ParquetRecords(pieces, self._schema)

    def json_objects(self) -> list[bytes]:
        out = BytesIO()
        with arrow_errors("a column has no JSON form"):
            for piece in self.arrow():
                write_ndjson(piece, out, explicit_nulls=True)
        return out.getvalue().splitlines()

    def arrow(self) -> list[RecordBatch]:
        return [
            RecordBatch.from_arrays(
                [
                    column.cast(DataType.date32()) if column.type == DataType.date64() else column
                    for column in piece.columns
                ],
                schema=self._schema,
            )
            for piece in self._pieces
        ]


class ParquetWriter:
    """Vectors are a nullable fixed_size_list<float32, d>, uncompressed, as they hardly shrink."""

    def __init__(self, options: WriteOptions) -> None:
        self._options = options
        self._item = Field("element", DataType.float32(), nullable=True)
        self._vector = Field(options.column, DataType.list(self._item, options.dimensions), nullable=True)

    def write(self, blocks: Iterable[Block], out: BinaryIO) -> None:
        schema = self._options.schema().append(self._vector)
        batches = _Held(self._batches(blocks, schema))
        file = _HeldFile(out, batches)
        leaf = (self._options.column, "list", "element")
        with arrow_errors("can not write Parquet"):
            write_parquet(
                RecordBatchReader.from_batches(schema, batches),
                file,  # type: ignore[arg-type]  # write and flush are all that arro3 calls
                compression="zstd(3)",
                column_compression={leaf: "uncompressed"},
                column_dictionary_enabled={leaf: False},
                key_value_metadata=_own_metadata(schema),
                max_row_group_size=self._row_group(),
            )
        if batches.error is not None:
            raise batches.error

    def _row_group(self) -> int:
        """Rows so that a group, which is held in memory until it is full, takes about 64 MB."""
        low, high = _ROW_GROUP_ROWS
        row_bytes = self._options.record_bytes + 4 * self._options.dimensions
        return min(max(_ROW_GROUP_BYTES // row_bytes, low), high)

    def _batches(self, blocks: Iterable[Block], schema: Schema) -> Iterator[RecordBatch]:
        for block in blocks:
            if len(schema) == 1:  # No record could be parsed, so there are rows but no other columns.
                yield RecordBatch.from_arrays([self._column(block.vectors, block.missing)], schema=schema)
                continue
            offset = 0
            for piece in block.records.arrow():
                rows = slice(offset, offset + piece.num_rows)
                offset += piece.num_rows
                column = self._column(block.vectors[rows], block.missing[rows])
                yield RecordBatch.from_arrays([*piece.columns, column], schema=schema)

    def _column(self, vectors: Any, missing: Mask) -> Array:
        flat = Array.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        mask = Array.from_numpy(missing) if missing.any() else None
        return fixed_size_list_array(flat, self._options.dimensions, type=self._vector.type, mask=mask)


class _Held:
    """An iterator that ends where its source raises and keeps the error."""

    def __init__(self, items: Iterator[RecordBatch]) -> None:
        self._items = items
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[RecordBatch]:
        try:
            while self.error is None and (item := next(self._items, None)) is not None:
                yield item
        except (TandemError, OSError, KeyboardInterrupt) as error:
            self.error = error


class _HeldFile:
    """A file that says yes to every write and keeps the first error; the batches end there too."""

    def __init__(self, out: BinaryIO, batches: _Held) -> None:
        self._out = out
        self._batches = batches

    def write(self, data: bytes) -> int:
        if self._batches.error is None:
            try:
                self._out.write(data)
            except (OSError, KeyboardInterrupt) as error:
                self._batches.error = error
        return len(data)

    def flush(self) -> None:
        """Whoever opened the file flushes it."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """arro3 wants to see the method and never calls it: Parquet is written front to back."""
        raise OSError(f"a Parquet file being written can not seek to {offset} from {whence}")


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _is_text(kind: DataType) -> bool:
    inner = kind.value_type if kind.value_type is not None and DataType.is_dictionary(kind) else kind
    return inner in (DataType.string(), DataType.large_string(), DataType.string_view())


def _parquet_field(field: Field) -> Field:
    # Parquet has one kind of date. arro3 would write Arrow's other one as bare integers.
    return field.with_type(DataType.date32()) if field.type == DataType.date64() else field


def _own_metadata(schema: Schema) -> dict[str, str] | None:
    """The input's key-value pairs, which other tools look for there ("geo", "pandas"); Arrow's own is made anew."""
    pairs = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in schema.metadata.items()}
    return {key: value for key, value in pairs.items() if key != "ARROW:schema"} or None
