from __future__ import annotations

from typing import Any

import pytest

from tandem.bulk.columns import check_reserved, choose_column, text_fault
from tandem.errors import JobError


@pytest.mark.parametrize("text", ["a", " a ", "\u00a0x", "\x00", "🙂"])
def test_texts(text: str) -> None:
    assert text_fault(text) is None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "null"),
        ("", "empty"),
        (" \t\u3000\n", "empty"),
        (3, "number, not a string"),
        (True, "boolean"),
        ([], "list"),
        ({}, "object"),
    ],
)
def test_what_is_no_text(value: Any, told: str) -> None:
    fault = text_fault(value)
    assert fault is not None
    assert told in fault


@pytest.mark.parametrize(
    ("wanted", "columns", "strings", "chosen"),
    [
        (None, ["id", "text", "title"], ["text", "title"], "text"),
        (None, ["id", "title"], ["title"], "title"),
        ("title", ["text", "title"], ["text", "title"], "title"),
    ],
)
def test_the_column_chosen(wanted: str | None, columns: list[str], strings: list[str], chosen: str) -> None:
    assert choose_column("in.csv", wanted, columns, strings) == chosen


@pytest.mark.parametrize(
    ("wanted", "columns", "strings", "told"),
    [
        ("body", ["id", "title"], ["title"], "no column 'body'; its columns are: id, title"),
        ("id", ["id", "title"], ["title"], "does not hold strings; these do: title"),
        (None, ["a", "b"], ["a", "b"], "--column; its columns are: a, b"),
        (None, ["n"], [], "--column; its columns are: n"),
    ],
)
def test_no_column_can_be_chosen(wanted: str | None, columns: list[str], strings: list[str], told: str) -> None:
    with pytest.raises(JobError, match=told):
        choose_column("in.csv", wanted, columns, strings)


def test_the_vectors_column_must_be_free() -> None:
    check_reserved("in.csv", None, ["embedding"])
    check_reserved("in.csv", "embedding", ["text"])
    with pytest.raises(JobError, match=r"already has a column 'embedding'.*--output-column"):
        check_reserved("in.csv", "embedding", ["text", "embedding"])
