from __future__ import annotations

from pathlib import Path

import pytest

from tandem.bulk.base import MAX_RECORD_BYTES, Batch, ReadOptions
from tandem.bulk.txt import TxtReader
from tandem.errors import JobError
from tests.unit.bulk.jobs import SMALL, file_source


def batches_of(folder: Path, data: bytes) -> list[Batch]:
    path = folder / "in.txt"
    path.write_bytes(data)
    return list(TxtReader(file_source(path), ReadOptions(window=SMALL)).batches())


@pytest.mark.parametrize(
    "data",
    [b"a\nb c\n", b"a\r\nb c\r\n", b"a\nb c", b"\xef\xbb\xbfa\nb c\n"],
    ids=["lf", "crlf", "no last line end", "byte order mark"],
)
def test_a_text_a_line(tmp_path: Path, data: bytes) -> None:
    (batch,) = batches_of(tmp_path, data)
    assert batch.texts == ["a", "b c"]


def test_marks_within_a_line_are_text(tmp_path: Path) -> None:
    line = "a\x0bb\x0cc\x1cd\u2028e\x85f\rg\x00h"
    (batch,) = batches_of(tmp_path, f"{line}\n".encode())
    assert batch.texts == [line]


def test_every_line_is_a_row(tmp_path: Path) -> None:
    first, second = batches_of(tmp_path, b"a\n\n \xff\n\n")
    assert first.texts == ["a", None, None]
    assert first.reasons == {1: "the text is empty", 2: "byte 2 is not valid UTF-8 (0xff)"}
    assert first.records.json_objects() == [b'{"text":"a"}', b'{"text":""}', b"{}"]
    assert second.where(0) == "line 4"


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert batches_of(tmp_path, b"") == []


def test_a_file_without_line_ends_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    with path.open("wb") as file:
        file.truncate(MAX_RECORD_BYTES + 10)
    with pytest.raises(JobError, match=r"in\.txt, line 1 is longer than 64 MB"):
        list(TxtReader(file_source(path), ReadOptions()).batches())


def test_the_column_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a\n")
    reader = TxtReader(file_source(path), ReadOptions(column="body"))
    (batch,) = reader.batches()
    assert batch.records.json_objects() == [b'{"body":"a"}']
    assert reader.schema().names == ["body"]


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    reader = TxtReader(file_source(tmp_path / "none.txt"), ReadOptions())
    with pytest.raises(JobError, match=r"can not read none\.txt: No such file"):
        list(reader.batches())
