"""What Redis answers, from bytes: its protocol, version 2, as far as a cache needs it.

(The format: redis.io, "Redis serialization protocol specification".) Own, as redis-py takes a row apart in 35
microseconds, of which this needs two, and a task for each read besides.
"""

from __future__ import annotations

from typing import TypeAlias

# No row has as many: 65,535 dimensions in float32 are a quarter of a MiB. What says it has more is not waited for.
_MOST_BYTES = 16 << 20
_MOST_LINE = 64 << 10
_MOST_DEPTH = 4
_STRING, _REFUSAL, _NUMBER, _BULK, _ARRAY = b"+-:$*"
_END = b"\r\n"


class RefusedError(Exception):
    """Redis says no, in the words of this error. Part of an answer, or raised."""


class LoginRefusedError(RefusedError):
    """It does so to user and password."""


class GarbledError(Exception):
    """What came is no answer of a Redis, or none to what was asked."""


Answer: TypeAlias = "bytes | int | RefusedError | list[Answer] | None"


class Replies:
    """The answers of one connection, in whatever pieces they come."""

    def __init__(self) -> None:
        self._rest = b""
        # Arrays of which not all has come, the outermost first, and how many each will have.
        self._open: list[tuple[list[Answer], int]] = []

    def feed(self, data: bytes) -> list[Answer]:
        """Those that are complete with these bytes. Raises GarbledError, after which nothing more can be read."""
        if self._rest:
            data = self._rest + data
        complete: list[Answer] = []
        at = 0
        while (end := data.find(_END, at)) >= 0:
            kind, after = data[at], end + 2
            value: Answer
            if kind == _BULK:
                length = _length(data[at + 1 : end])
                if length < 0:
                    value = None
                elif len(data) < after + length + 2:
                    break
                else:
                    value, after = data[after : after + length], after + length + 2
                    if data[after - 2 : after] != _END:
                        raise GarbledError("a string without its end")
            elif kind == _ARRAY:
                count = _length(data[at + 1 : end])
                if count > 0:
                    self._begin(count)
                    at = after
                    continue
                value = [] if count == 0 else None
            else:
                value = _line(kind, data[at + 1 : end])
            at = after
            self._add(value, complete)
        self._rest = data[at:]
        if len(self._rest) > _MOST_LINE and end < 0:
            raise GarbledError("a line without an end")
        return complete

    def _begin(self, count: int) -> None:
        if len(self._open) == _MOST_DEPTH:
            raise GarbledError("lists in lists in lists")
        self._open.append(([], count))

    def _add(self, value: Answer, complete: list[Answer]) -> None:
        while self._open:
            items, count = self._open[-1]
            items.append(value)
            if len(items) < count:
                return
            value = items
            self._open.pop()
        complete.append(value)


def _line(kind: int, text: bytes) -> Answer:
    if kind == _STRING:
        return text
    if kind == _REFUSAL:
        return RefusedError(text.decode(errors="replace"))
    if kind == _NUMBER:
        return _whole(text)
    raise GarbledError("no answer of Redis begins so")


def _length(text: bytes) -> int:
    found = _whole(text)
    if not -1 <= found <= _MOST_BYTES:
        raise GarbledError(f"an answer of length {found}")
    return found


def _whole(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise GarbledError("no number where one must be") from None
