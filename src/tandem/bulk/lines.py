"""What the line-based formats share: lines with their byte offsets, and records cut into batches."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tandem.bulk.base import MAX_RECORD_BYTES, Batch, Position, Records, Source, Window
from tandem.errors import JobError

_SAMPLE_BYTES = 1 << 20


class Lines:
    """Iterates over a source's lines, end marks kept. ``offset`` and ``line`` are those of the line that comes next."""

    def __init__(self, source: Source, start: Position) -> None:
        self.offset = start.offset
        self.line = start.line
        self._name = source.name
        self._file = source.open_at(start.offset)
        # A stream is opened by whoever owns it and may be read on.
        self._owned = source.path is not None

    def __iter__(self) -> Iterator[bytes]:
        try:
            while raw := self._read():
                first = self.offset == 0
                self.offset += len(raw)
                self.line += 1
                line = _without_mark(self._name, raw) if first else raw
                if line:  # A byte order mark and nothing else is an empty file.
                    yield line
        finally:
            self.close()

    def close(self) -> None:
        if self._owned:
            self._file.close()

    def _read(self) -> bytes:
        try:
            raw = self._file.readline(MAX_RECORD_BYTES + 1)
        except OSError as error:
            raise JobError(f"can not read {self._name}: {error.strerror}") from error
        if len(raw) > MAX_RECORD_BYTES:
            limit = MAX_RECORD_BYTES >> 20
            raise JobError(f"{self._name}, line {self.line} is longer than {limit} MB: is it a file of lines?")
        return raw


def _without_mark(name: str, raw: bytes) -> bytes:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise JobError(f"{name} is UTF-16; save it as UTF-8")
    return raw.removeprefix(codecs.BOM_UTF8)


def sample(source: Source) -> list[bytes]:
    """The lines of the first megabyte or less, without using them up; the last may be cut off."""
    file = source.open_at(0)
    try:
        peek = getattr(file, "peek", None)
        seen = b"" if peek is None else bytes(peek(_SAMPLE_BYTES))
    except OSError as error:
        raise JobError(f"can not read {source.name}: {error.strerror}") from error
    finally:
        if source.path is not None:
            file.close()
    return _without_mark(source.name, seen).split(b"\n")


def utf8_fault(error: UnicodeDecodeError) -> str:
    return f"byte {error.start + 1} is not valid UTF-8 (0x{error.object[error.start]:02x})"


class Item(NamedTuple):
    """One record, and where the next one begins. ``text`` counts only when there is no ``reason`` against it."""

    text: str | None
    reason: str | None
    place: int
    carrier: Any
    size_bytes: int
    offset: int
    line: int


@dataclass
class _Filling:
    texts: list[str | None] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    carriers: list[Any] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, item: Item) -> None:
        if item.reason is not None:
            self.reasons[len(self.texts)] = item.reason
        self.texts.append(item.text if item.reason is None else None)
        self.places.append(item.place)
        self.carriers.append(item.carrier)
        self.size_bytes += item.size_bytes

    def close(self, records_before: int, last: Item, wrap: Callable[[list[Any]], Records]) -> Batch:
        end = Position(records_before + len(self.texts), last.offset, last.line)
        return Batch(self.texts, self.reasons, self.places, wrap(self.carriers), end)


def group(
    items: Iterable[Item], start: Position, window: Window, wrap: Callable[[list[Any]], Records]
) -> Iterator[Batch]:
    """Cut ``items`` into batches by count and bytes. Where the cuts fall depends on the start and the data alone."""
    filling, records = _Filling(), start.records
    last: Item | None = None
    for item in items:
        last = item
        filling.add(item)
        if len(filling.texts) >= window.records or filling.size_bytes >= window.size_bytes:
            batch = filling.close(records, item, wrap)
            records = batch.end.records
            filling = _Filling()
            yield batch
    if last is not None and filling.texts:
        yield filling.close(records, last, wrap)
