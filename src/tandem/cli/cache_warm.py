"""``tandem cache warm FILE``: have a running server compute a file of texts, so that they are known."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tandem.cli.cache_client import Server, ServerBusyError, ServerRefusedError
from tandem.clock import Clock
from tandem.errors import JobError

_CHUNK = 256
_SHOWN = 10
# What is wrong with the texts and not with who asks.
_TEXTS_AT_FAULT = frozenset({400, 413, 422})
_KNOWN = frozenset({"l1", "l2"})


class Line(msgspec.Struct, frozen=True):
    """A text and the number of its line, from 1."""

    number: int
    text: str


class _Memory(msgspec.Struct, frozen=True):
    entries: float
    evictions: float


class _Rows(msgspec.Struct, frozen=True):
    memory: _Memory
    second_level_name: str | None = None


class _Stats(msgspec.Struct, frozen=True):
    """What is needed here of ``GET /v1/cache/stats``."""

    rows: _Rows | None


class Warmth(msgspec.Struct):
    """``warm`` texts are known now; ``known`` of them came in lists of which all was known before. ``failed`` were
    refused, ``left_out`` are lines without a text."""

    warm: int = 0
    known: int = 0
    failed: int = 0
    left_out: int = 0

    def words(self, seconds: float) -> str:
        """For people."""
        lines = "1 line" if self.left_out == 1 else f"{self.left_out:,} lines"
        rest = f"; {lines} had no text" if self.left_out else ""
        return (
            f"{self.warm:,} texts are warm ({self.known:,} were known before), {self.failed:,} failed, "
            f"in {seconds:.1f} s{rest}"
        )


def warm(server: Server, file: Path, clock: Clock) -> int:
    """Send the file's texts in lists, in order; 0 when all were computed or known, 5 when some were refused. Prints how
    it went, however it ends, and when memory has no room for them. Raises JobError for a file that can not be read, a
    server that can not be waited for any more, and one that keeps no rows.

    A list that is refused for what is in it is halved until the texts at fault stand alone: one bad line costs a
    few requests more, and no other text.
    """
    found, begun_s, is_done = Warmth(), clock.now(), False
    try:
        for chunk in _chunks(file, found):
            _send(server, chunk, found)
        is_done = True
    except ServerBusyError as error:
        raise ServerBusyError(
            f"{error}; run it again when the server is well: what is warm costs next to nothing"
        ) from None
    finally:
        if is_done or found.warm or found.failed:
            print(found.words(clock.now() - begun_s))
    if found.warm:
        _look(server, found.warm)
    return 5 if found.failed else 0


def _send(server: Server, chunk: list[Line], found: Warmth) -> None:
    try:
        source = server.embed([line.text for line in chunk])
    except ServerRefusedError as error:
        if error.status not in _TEXTS_AT_FAULT:
            raise
        if len(chunk) > 1:
            middle = len(chunk) // 2
            _send(server, chunk[:middle], found)
            _send(server, chunk[middle:], found)
            return
        found.failed += 1
        if found.failed <= _SHOWN:
            print(f"line {chunk[0].number}: {error}", file=sys.stderr)
        return
    if not source:
        raise JobError(
            "the server does not say where its rows came from (x-tandem-cache), so it keeps none: its cache is off "
            "(cache: off), or a proxy before it takes that header away"
        )
    found.warm += len(chunk)
    found.known += len(chunk) if source in _KNOWN else 0


def _look(server: Server, warm: int) -> None:
    """Say so where the server can not have kept them all. Rows that made room are asked for too: a file that has texts
    twice needs fewer rows than it has lines."""
    try:
        rows = msgspec.convert(server.ask("GET", "/v1/cache/stats"), _Stats).rows
    except (JobError, msgspec.ValidationError) as error:
        print(f"whether they were all kept can not be told: {error}", file=sys.stderr)
        return
    if rows is None or rows.second_level_name is not None:
        return
    held, gone = rows.memory.entries, rows.memory.evictions
    if held < warm and gone:
        print(
            f"but memory holds {held:,.0f} rows in all, and {gone:,.0f} made room: these texts are likely not all "
            "there. Raise the server's cache_bytes, or give it a second level (cache_l2)"
        )


def _chunks(file: Path, found: Warmth) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                content = line.strip()
                text = _text(content)
                if text:
                    chunk.append(Line(number, text))
                elif content:
                    found.left_out += 1
                    if found.left_out <= _SHOWN:
                        print(f'{file}, line {number}: no field "text"; left out', file=sys.stderr)
                if len(chunk) == _CHUNK:
                    yield chunk
                    chunk = []
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{file} can not be read: {error}") from None
    if chunk:
        yield chunk


def _text(line: str) -> str:
    """Empty where there is none."""
    if not line.startswith("{"):
        return line
    try:
        found = json.loads(line)
    except ValueError:
        return line
    return found["text"] if isinstance(found.get("text"), str) else ""
