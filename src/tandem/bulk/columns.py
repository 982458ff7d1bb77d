"""Which column holds the texts, what a text may be, and which names are taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tandem.errors import JobError

_JSON_NAMES = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}


def text_fault(value: object) -> str | None:
    """Why ``value`` can not be embedded, None when it can."""
    if value is None:
        return "the text is null"
    if not isinstance(value, str):
        return f"the text is a {_JSON_NAMES.get(type(value), type(value).__name__)}, not a string"
    # A model answers white space with a vector, and that vector means nothing: better said than stored.
    if not value or value.isspace():
        return "the text is empty"
    return None


def choose_column(source: str, wanted: str | None, columns: Sequence[str], strings: Sequence[str]) -> str:
    """The text column: ``wanted``, else ``text``, else the only string column. Raises JobError listing the columns."""
    listed = ", ".join(columns) or "none"
    if wanted is not None:
        if wanted not in columns:
            raise JobError(f"{source} has no column {wanted!r}; its columns are: {listed}")
        if wanted not in strings:
            these = ", ".join(strings) or "none"
            raise JobError(f"column {wanted!r} of {source} does not hold strings; these do: {these}")
        return wanted
    if "text" in strings:
        return "text"
    if len(strings) == 1:
        return strings[0]
    raise JobError(f"which column of {source} holds the texts? Name it with --column; its columns are: {listed}")


def check_reserved(where: str, reserved: str | None, columns: Iterable[str]) -> None:
    """Raises JobError when the input already has the column that the vectors are to go to."""
    if reserved is not None and reserved in columns:
        raise JobError(f"{where} already has a column {reserved!r}; name another for the vectors with --output-column")
