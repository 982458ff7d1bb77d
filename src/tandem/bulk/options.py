"""What a job is asked to do, and the readers and writers that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tandem.bulk import readers, writers
from tandem.bulk.base import WINDOW, Batch, Block, Mask, Reader, ReadOptions, Source, Window, WriteOptions, Writer
from tandem.bulk.journal import Survey
from tandem.types import Rows


class OnError(StrEnum):
    """What becomes of a row that can not be embedded."""

    FAIL = "fail"
    """The job stops; it looks at all rows before it starts."""
    SKIP = "skip"
    """The row is left out."""
    NULL = "null"
    """The row stays, its vector null (NaN in .npy), and its columns too where they could not be read."""


@dataclass(frozen=True)
class JobOptions:
    """``output`` None writes to ``stdout``; then, and when ``source`` is a stream, nothing can be resumed."""

    source: Source
    input_format: str
    output: Path | None
    output_format: str
    stdout: BinaryIO | None = None
    column: str | None = None
    output_column: str = "embedding"
    on_error: OnError = OnError.FAIL
    overwrite: bool = False
    restart: bool = False
    window: Window = WINDOW


@dataclass
class Summary:
    """``records`` were read and ``without`` of them got no vector; ``resumed_at`` were there from an earlier run."""

    records: int = 0
    without: int = 0
    resumed_at: int = 0


def open_reader(options: JobOptions, survey: Survey | None = None, *, learn: bool = False) -> Reader:
    """The input, from its start. ``learn`` finds out column types where the output needs them."""
    read = ReadOptions(
        column=options.column if survey is None else survey.column,
        reserved=None if options.output_format == "npy" else options.output_column,
        learn=learn and options.output_format == "parquet",
        types=None if survey is None else survey.types,
        window=options.window,
    )
    return readers.get(options.input_format)(options.source, read)


def make_writer(options: JobOptions, reader: Reader, dimensions: int, survey: Survey | None = None) -> Writer:
    write = WriteOptions(column=options.output_column, dimensions=dimensions, schema=reader.schema)
    if survey is not None:
        write = WriteOptions(write.column, write.dimensions, write.schema, survey.record_bytes)
    return writers.get(options.output_format)(write)


def make_block(batch: Batch, vectors: Rows, missing: Mask, on_error: OnError) -> Block:
    """What is written of a batch."""
    if on_error is not OnError.SKIP or not missing.any():
        return Block(batch.records, vectors, missing)
    kept = ~missing
    return Block(batch.records.keep(kept), vectors[kept], np.zeros(int(kept.sum()), np.bool_))


def fault(options: JobOptions, batch: Batch, index: int, reason: str) -> str:
    """One sentence that leads a person to the row."""
    return f"{options.source.name}, {batch.where(index)}: {reason}"
