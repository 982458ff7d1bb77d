"""JSON Lines: one JSON object a line. Blank lines are no records.

Records pass through as the bytes they are, so numbers, key order and white space of the other columns stay as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from tandem.bulk.base import START, Batch, Block, Mask, Position, ReadOptions, Source, WriteOptions
from tandem.bulk.columns import check_reserved, choose_column, text_fault
from tandem.bulk.json_types import as_text, learn, schema_of
from tandem.bulk.lines import Item, Lines, group, sample
from tandem.types import Rows

if TYPE_CHECKING:
    from arro3.core import RecordBatch, Schema


class JsonlReader:
    """Which column holds the texts is decided by the first megabyte; ``types`` grow as records are read."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        self.types: dict[str, Any] | None = dict(options.types or {}) if options.learn or options.types else None
        self.column = options.column or self._choose()

    def batches(self, start: Position = START) -> Iterator[Batch]:
        return group(self._items(start), start, self._options.window, lambda raw: JsonlRecords(raw, self))

    def schema(self) -> Schema:
        return schema_of(self.types or {})

    def _choose(self) -> str:
        kinds: dict[str, bool] = {}
        for raw in sample(self._source):
            record, _ = _parse(raw)
            for name, value in (record or {}).items():
                kinds[name] = kinds.get(name, False) or isinstance(value, str)
        if not kinds:
            return "text"  # Nothing there to choose from; each record says what is wrong with it.
        strings = [name for name, is_string in kinds.items() if is_string]
        return choose_column(self._source.name, None, list(kinds), strings)

    def _items(self, start: Position) -> Iterator[Item]:
        lines = Lines(self._source, start)
        reserved = self._options.reserved
        for raw in lines:
            raw = raw.strip(b" \t\r\n")
            if not raw:
                continue
            place = lines.line - 1
            record, reason = _parse(raw)
            text = None
            if record is not None:
                where = f"{self._source.name}, line {place}"
                check_reserved(where, reserved, record)
                if self._options.learn and self.types is not None:
                    learn(self.types, record, where)
                text = record.get(self.column)
                missing = self.column not in record
                reason = f"no {self.column!r} among its keys: {', '.join(record)}" if missing else text_fault(text)
            yield Item(text, reason, place, None if record is None else raw, len(raw), lines.offset, lines.line)


def _parse(raw: bytes) -> tuple[dict[str, Any] | None, str | None]:
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return None, f"not JSON: {error}"
    if not isinstance(record, dict):
        return None, f"a JSON {type(record).__name__}, not an object"
    return record, None


class JsonlRecords:
    """Objects as bytes; None for one that could not be parsed. Their types are the reader's."""

    def __init__(self, objects: list[bytes | None], reader: JsonlReader) -> None:
        self._objects = objects
        self._reader = reader

    def __len__(self) -> int:
        return len(self._objects)

    def keep(self, mask: Mask) -> JsonlRecords:
        kept = [raw for raw, wanted in zip(self._objects, mask, strict=True) if wanted]
        return JsonlRecords(kept, self._reader)

    def json_objects(self) -> list[bytes]:
        return [raw or b"{}" for raw in self._objects]

    def arrow(self) -> list[RecordBatch]:
        from arro3.io import read_json

        from tandem.bulk.arrow import arrow_errors

        types = self._reader.types or {}
        texts = [name for name, kind in types.items() if kind == "json"]
        objects = self.json_objects()
        if texts:
            objects = [as_text(raw, texts) for raw in objects]
        # Escapes are resolved here: arrow-json (arro3 0.9.1) reads the escaped pair of U+20000 and above as another
        # character, and JSON written in ASCII has every rare Chinese character as such a pair.
        objects = [orjson.dumps(orjson.loads(raw)) if b"\\u" in raw else raw for raw in objects]
        with arrow_errors("can not turn JSON into columns"):
            # One piece: the batch size is the count.
            return list(read_json(BytesIO(b"\n".join(objects)), schema_of(types), batch_size=max(len(objects), 1)))


class JsonlWriter:
    """Adds the vector to each object, as decimals that give back the same float32; null for a record without one."""

    def __init__(self, options: WriteOptions) -> None:
        self._key = orjson.dumps(options.column) + b":"

    def write(self, blocks: Iterable[Block], out: BinaryIO) -> None:
        for block in blocks:
            out.write(self._lines(block))
            out.flush()

    def _lines(self, block: Block) -> bytes:
        parts: list[bytes] = []
        vectors = vector_texts(block.vectors)
        for raw, vector, missing in zip(block.records.json_objects(), vectors, block.missing, strict=True):
            body = raw[:-1].rstrip()
            parts += (body, b"" if body == b"{" else b",", self._key, b"null" if missing else vector, b"}\n")
        return b"".join(parts)


def vector_texts(vectors: Rows) -> list[bytes]:
    """Each row of float32 [n, d] as a JSON array, in the shortest decimals that round back to the same float32."""
    if not len(vectors):
        return []
    # One call for the matrix and one split is five times faster than a call a row.
    text = orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY)
    return [b"[" + row + b"]" for row in text[2:-2].split(b"],[")]
