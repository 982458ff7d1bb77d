"""Plain text: one text a line, line ends \\n or \\r\\n. Every line is a record, a blank one too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from tandem.bulk.arrow import string_batch, string_schema
from tandem.bulk.base import START, Batch, Mask, Position, ReadOptions, Source
from tandem.bulk.columns import check_reserved, text_fault
from tandem.bulk.lines import Item, Lines, group, utf8_fault

if TYPE_CHECKING:
    from arro3.core import RecordBatch, Schema


class TxtReader:
    """The one column is called ``text``, or whatever ``--column`` says."""

    types: dict[str, Any] | None = None

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._window = options.window
        self.column = options.column or "text"
        check_reserved(source.name, options.reserved, [self.column])

    def batches(self, start: Position = START) -> Iterator[Batch]:
        return group(self._items(start), start, self._window, lambda texts: TxtRecords(self.column, texts))

    def schema(self) -> Schema:
        return string_schema([self.column])

    def _items(self, start: Position) -> Iterator[Item]:
        lines = Lines(self._source, start)
        for raw in lines:
            text, reason = None, None
            try:
                # Not splitlines(): it also cuts at form feeds and U+2028, which belong to the text.
                text = raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
                reason = text_fault(text)
            except UnicodeDecodeError as error:
                reason = utf8_fault(error)
            yield Item(text, reason, lines.line - 1, text, len(raw), lines.offset, lines.line)


class TxtRecords:
    def __init__(self, column: str, texts: list[str | None]) -> None:
        self._column = column
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def keep(self, mask: Mask) -> TxtRecords:
        return TxtRecords(self._column, [text for text, kept in zip(self._texts, mask, strict=True) if kept])

    def json_objects(self) -> list[bytes]:
        return [b"{}" if text is None else orjson.dumps({self._column: text}) for text in self._texts]

    def arrow(self) -> list[RecordBatch]:
        return [string_batch([self._column], [self._texts])]
