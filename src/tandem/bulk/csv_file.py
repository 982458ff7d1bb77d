"""CSV as RFC 4180 has it: commas, a line of column names first, quotes doubled inside quotes, line ends in quotes.

A CSV has no types, so every column stays the string it is: "007" is not 7 and "" is not null.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import orjson

from tandem.bulk.arrow import string_batch, string_schema
from tandem.bulk.base import MAX_RECORD_BYTES, START, Batch, Mask, Position, ReadOptions, Source
from tandem.bulk.columns import check_reserved, choose_column, text_fault
from tandem.bulk.lines import Item, Lines, group, utf8_fault
from tandem.errors import JobError

if TYPE_CHECKING:
    from arro3.core import RecordBatch, Schema


class _Rows:
    """Rows from a position on. csv.reader is fed one line at a time, so ``lines.offset`` after a row is its end."""

    def __init__(self, source: Source, start: Position) -> None:
        # Python's own limit is 128 kB a field, for the whole process; ours is the one for any record.
        csv.field_size_limit(MAX_RECORD_BYTES)
        self.lines = Lines(source, start)
        self.fault: str | None = None
        self._name = source.name
        self._decoded = self._decode()
        self._rows = csv.reader(self._decoded, strict=True)

    def next(self) -> list[str] | None:
        """The next row, [] for a blank line, None at the end; ``fault`` says what is wrong with its bytes."""
        self.fault = None
        place = self.lines.line
        try:
            return next(self._rows, None)
        except csv.Error as error:
            # Never skipped: after a stray or open quote nobody can say where the next row begins.
            raise JobError(f"{self._name}, the row at line {place} is not CSV: {error}") from error

    def close(self) -> None:
        self._decoded.close()
        self.lines.close()

    def _decode(self) -> Generator[str, None, None]:
        for raw in self.lines:
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                # The row's shape can still be read, so this row alone is lost.
                self.fault = utf8_fault(error)
                yield raw.decode("utf-8", "replace")


class CsvReader:
    """Columns are named by the first line."""

    types: dict[str, Any] | None = None

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._window = options.window
        rows = _Rows(source, START)
        # A stream is read once, so its rows go on from here; a file is opened anew for every pass.
        self._rest = rows if source.path is None else None
        with nullcontext() if self._rest else closing(rows):
            self._names = self._read_names(rows)
        self._first = Position(0, rows.lines.offset, rows.lines.line)
        self.column = choose_column(source.name, options.column, self._names, self._names)
        check_reserved(source.name, options.reserved, self._names)

    def batches(self, start: Position = START) -> Iterator[Batch]:
        return group(self._items(start), start, self._window, lambda rows: CsvRecords(self._names, rows))

    def schema(self) -> Schema:
        return string_schema(self._names)

    def _read_names(self, rows: _Rows) -> list[str]:
        names = rows.next()
        if not names:
            raise JobError(f"{self._source.name} is empty: a CSV file starts with a line of column names")
        if rows.fault is not None:
            raise JobError(f"{self._source.name}, line 1: {rows.fault}")
        if len(set(names)) < len(names):
            raise JobError(f"{self._source.name} names a column twice: {', '.join(names)}")
        if len(names) == 1 and any(mark in names[0] for mark in "\t;|"):
            raise JobError(f"{self._source.name} has a single column, {names[0]!r}: columns are parted by commas")
        return names

    def _items(self, start: Position) -> Iterator[Item]:
        rows = self._rest or _Rows(self._source, start if start.offset else self._first)
        lines, width, at = rows.lines, len(self._names), self._names.index(self.column)
        try:
            while True:
                place, before = lines.line, lines.offset
                row = rows.next()
                if row is None:
                    return
                if not row:
                    continue  # A blank line is no row, as for every CSV reader.
                reason = rows.fault
                if reason is None and len(row) != width:
                    reason = f"{len(row)} fields, but {width} columns"
                carrier = None if reason else row
                reason = reason or text_fault(row[at])
                yield Item(
                    row[at] if carrier else None,
                    reason,
                    place,
                    carrier,
                    lines.offset - before,
                    lines.offset,
                    lines.line,
                )
        finally:
            rows.close()


class CsvRecords:
    """Rows as lists of strings; None for one that could not be read."""

    def __init__(self, names: list[str], rows: list[list[str] | None]) -> None:
        self._names = names
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, mask: Mask) -> CsvRecords:
        return CsvRecords(self._names, [row for row, kept in zip(self._rows, mask, strict=True) if kept])

    def json_objects(self) -> list[bytes]:
        names = self._names
        return [orjson.dumps(dict(zip(names, row, strict=True))) if row else b"{}" for row in self._rows]

    def arrow(self) -> list[RecordBatch]:
        empty = [None] * len(self._names)
        columns = zip(*(row or empty for row in self._rows), strict=True) if self._rows else ([] for _ in self._names)
        return [string_batch(self._names, [list(column) for column in columns])]
