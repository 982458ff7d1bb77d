"""Small things that every user of Arrow here needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType

from arro3.core import Array, DataType, Field, RecordBatch, Schema

from tandem.errors import JobError


def check_names(names: Iterable[str]) -> None:
    """Raises JobError for a column name that Arrow can not hold; arro3 would panic."""
    for name in names:
        if "\0" in name:
            raise JobError(f"column {name!r} has a NUL in its name, which Parquet does not take; write .jsonl instead")


def string_schema(names: Sequence[str]) -> Schema:
    """Nullable string columns. Raises JobError for a name that Arrow does not take."""
    check_names(names)
    return Schema([Field(name, DataType.string(), nullable=True) for name in names])


def string_batch(names: Sequence[str], columns: Sequence[Sequence[str | None]]) -> RecordBatch:
    """Columns of equal length under ``string_schema(names)``."""
    arrays = [Array(column, type=DataType.string()) for column in columns]
    return RecordBatch.from_arrays(arrays, schema=string_schema(names))


class arrow_errors:  # noqa: N801  (a context manager, read as a word)
    """Turns what arro3 raises into a JobError: a bare ``Exception``, or a Rust panic, which is a BaseException.

    An ``except`` clause that catches both would catch everything else too, so the type is looked at instead.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None and (kind is Exception or kind.__name__ == "PanicException"):
            raise JobError(f"{self._doing}: {error}") from error
