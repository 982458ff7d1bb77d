from __future__ import annotations

from pathlib import Path

import pytest

from tandem.bulk.base import ReadOptions
from tandem.bulk.csv_file import CsvReader
from tandem.errors import JobError
from tests.unit.bulk.jobs import SMALL, file_source, stream_source


def reader_of(folder: Path, data: bytes, column: str | None = None) -> CsvReader:
    path = folder / "in.csv"
    path.write_bytes(data)
    return CsvReader(file_source(path), ReadOptions(column=column, reserved="embedding", window=SMALL))


def texts_of(reader: CsvReader) -> list[str | None]:
    return [text for batch in reader.batches() for text in batch.texts]


@pytest.mark.parametrize(
    "data",
    [
        b"id,text\n1,a b\n2,c\n",
        b"id,text\r\n1,a b\r\n2,c\r\n",
        b"id,text\n1,a b\n2,c",
        b"\xef\xbb\xbfid,text\n1,a b\n2,c\n",
        b'\xef\xbb\xbf"id","text"\n"1","a b"\n"2","c"\n',
        b"id,text\n\n1,a b\n\r\n2,c\n\n",
    ],
    ids=["lf", "crlf", "no last line end", "byte order mark", "all quoted", "blank lines"],
)
def test_the_forms_of_csv(tmp_path: Path, data: bytes) -> None:
    assert texts_of(reader_of(tmp_path, data)) == ["a b", "c"]


def test_quotes_commas_and_line_ends_in_fields(tmp_path: Path) -> None:
    data = b'id,text\n1,"a, ""b""\r\nc\nd"\n2,e\n'
    (batch,) = reader_of(tmp_path, data).batches()
    assert batch.texts == ['a, "b"\r\nc\nd', "e"]
    assert batch.places == [2, 5]
    assert batch.records.json_objects() == [rb'{"id":"1","text":"a, \"b\"\r\nc\nd"}', b'{"id":"2","text":"e"}']


def test_a_field_longer_than_pythons_limit(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert texts_of(reader_of(tmp_path, f"text\n{long}\n".encode())) == [long]


def test_going_on_after_any_row_gives_the_rest(tmp_path: Path) -> None:
    rows = [f'{index},"line one of {index}\nline two"' for index in range(10)]
    reader = reader_of(tmp_path, "\n".join(["id,text", *rows]).encode())
    batches = list(reader.batches())
    assert [len(batch.texts) for batch in batches] == [3, 3, 3, 1]
    for index, batch in enumerate(batches):
        rest = list(reader.batches(batch.end))
        assert [other.texts for other in rest] == [other.texts for other in batches[index + 1 :]]
        assert [other.places for other in rest] == [other.places for other in batches[index + 1 :]]


def test_rows_that_are_faulty_are_told_and_empty(tmp_path: Path) -> None:
    (batch,) = reader_of(tmp_path, b"id,text\n1\n2,a,b\n3,\xff\n").batches()
    assert batch.reasons == {
        0: "1 fields, but 2 columns",
        1: "3 fields, but 2 columns",
        2: "byte 3 is not valid UTF-8 (0xff)",
    }
    assert batch.records.json_objects() == [b"{}"] * 3
    assert batch.texts == [None] * 3


def test_a_row_with_an_empty_text_keeps_its_columns(tmp_path: Path) -> None:
    (batch,) = reader_of(tmp_path, b"id,text\n1,\n").batches()
    assert batch.reasons == {0: "the text is empty"}
    assert batch.records.json_objects() == [b'{"id":"1","text":""}']


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "in.csv is empty"),
        (b"\n", "in.csv is empty"),
        (b"text,text\na,b\n", "names a column twice"),
        (b"id;text\n1;a\n", "a single column, 'id;text': columns are parted by commas"),
        (b"id\ttext\n1\ta\n", "columns are parted by commas"),
        (b"a,b\n1,2\n", "--column; its columns are: a, b"),
        (b"text,embedding\n1,2\n", "--output-column"),
        (b"te\xffxt\n1\n", "line 1: byte 3 is not valid UTF-8"),
        ("text\na\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
    ],
)
def test_files_that_can_not_be_used(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(JobError, match=told):
        reader_of(tmp_path, data)


@pytest.mark.parametrize("data", [b'id,text\n1,a\n2,"b\n3,c\n', b'id,text\n1,a\n2,"b"c\n3,d\n'], ids=["open", "stray"])
def test_a_wrong_quote_stops_everything(tmp_path: Path, data: bytes) -> None:
    """Nobody can say where the next row begins, so no policy on rows applies."""
    with pytest.raises(JobError, match=r"in\.csv, the row at line 3 is not CSV"):
        texts_of(reader_of(tmp_path, data))


def test_a_stream_is_read_in_one_pass() -> None:
    reader = CsvReader(stream_source(b"id,text\n1,a\n2,b\n"), ReadOptions(window=SMALL))
    assert reader.column == "text"
    assert texts_of(reader) == ["a", "b"]
