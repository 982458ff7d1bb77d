from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tandem.bulk.base import Block, ReadOptions, WriteOptions
from tandem.bulk.jsonl import JsonlReader, JsonlWriter
from tandem.errors import JobError
from tests.unit.bulk.jobs import SMALL, file_source, hash_rows, stream_source


def reader_of(folder: Path, data: bytes, column: str | None = None, learn: bool = False) -> JsonlReader:
    path = folder / "in.jsonl"
    path.write_bytes(data)
    return JsonlReader(file_source(path), ReadOptions(column=column, reserved="embedding", learn=learn, window=SMALL))


def table_of(folder: Path, data: bytes) -> list[dict[str, Any]]:
    """The Arrow columns under types learned from the whole file, as a job makes them."""
    pa = pytest.importorskip("pyarrow")
    reader = reader_of(folder, data, learn=True)
    batches = list(reader.batches())
    pieces = [piece for batch in batches for piece in batch.records.arrow()]
    rows: list[dict[str, Any]] = pa.Table.from_batches([pa.record_batch(piece) for piece in pieces]).to_pylist()
    return rows


@pytest.mark.parametrize(
    "data",
    [
        b'{"text":"a"}\n{"text":"b"}\n',
        b'{"text":"a"}\r\n{"text":"b"}\r\n',
        b'{"text":"a"}\n{"text":"b"}',
        b'\xef\xbb\xbf{"text":"a"}\n{"text":"b"}\n',
        b'\n{"text":"a"}\n  \n{"text":"b"}\n\n',
    ],
    ids=["lf", "crlf", "no last line end", "byte order mark", "blank lines"],
)
def test_the_forms_of_json_lines(tmp_path: Path, data: bytes) -> None:
    (batch,) = reader_of(tmp_path, data).batches()
    assert batch.texts == ["a", "b"]
    assert batch.records.json_objects() == [b'{"text":"a"}', b'{"text":"b"}']


def test_faulty_lines_are_told_by_number(tmp_path: Path) -> None:
    data = b'{"text":"a"}\n\n{"text":\n["a"]\n{"text":null}\n{"text":5}\n{"body":"b"}\n{"text":"\\ud800"}\n\xff\n'
    batches = list(reader_of(tmp_path, data).batches())
    told = {batch.where(index): reason for batch in batches for index, reason in batch.reasons.items()}
    assert told.keys() == {f"line {number}" for number in (3, 4, 5, 6, 7, 8, 9)}
    assert told["line 3"].startswith("not JSON: ")
    assert told["line 4"] == "a JSON list, not an object"
    assert told["line 5"] == "the text is null"
    assert told["line 6"] == "the text is a number, not a string"
    assert told["line 7"] == "no 'text' among its keys: body"
    objects = [raw for batch in batches for raw in batch.records.json_objects()]
    assert objects[1] == b"{}"
    assert objects[3] == b'{"text":null}'


@pytest.mark.parametrize(
    ("data", "column"),
    [
        (b'{"id":1,"text":"a","title":"b"}', "text"),
        (b'{"id":1,"title":"b"}', "title"),
        (b'{"id":"1"}\n{"id":"2","text":"a"}', "text"),
        (b"", "text"),
        (b"broken", "text"),
    ],
)
def test_the_column_is_chosen_by_the_first_records(tmp_path: Path, data: bytes, column: str) -> None:
    assert reader_of(tmp_path, data).column == column
    assert JsonlReader(stream_source(data), ReadOptions()).column == column


def test_no_column_to_choose(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--column; its columns are: a, b"):
        reader_of(tmp_path, b'{"a":"x","b":"y"}\n')


def test_choosing_does_not_use_up_a_stream() -> None:
    data = b"".join(b'{"title":"%d"}\n' % number for number in range(10))
    reader = JsonlReader(stream_source(data), ReadOptions(window=SMALL))
    assert [text for batch in reader.batches() for text in batch.texts] == [str(number) for number in range(10)]


def test_the_vectors_column_must_be_free_in_every_record(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, b'{"text":"a"}\n{"text":"b","embedding":[1]}\n')
    with pytest.raises(JobError, match=r"in\.jsonl, line 2 already has a column 'embedding'"):
        list(reader.batches())


def test_going_on_after_any_batch_gives_the_rest(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, b"\n".join(b'{"text":"%d"}' % number for number in range(10)))
    batches = list(reader.batches())
    for index, batch in enumerate(batches):
        assert [other.texts for other in reader.batches(batch.end)] == [other.texts for other in batches[index + 1 :]]


def test_columns_get_types(tmp_path: Path) -> None:
    data = b"""{"text":"a","n":1,"x":1,"t":["p"],"o":{"k":1},"b":true}
{"text":"b","n":null,"x":2.5,"t":[],"o":{"k":null,"l":"m"},"later":9007199254740993}
{"text":"c","n":9223372036854775807,"b":false,"none":null}
{"text":"d"}
"""
    assert table_of(tmp_path, data) == [
        {"text": "a", "n": 1, "x": 1.0, "t": ["p"], "o": {"k": 1, "l": None}, "b": True, "later": None, "none": None},
        {
            "text": "b",
            "n": None,
            "x": 2.5,
            "t": [],
            "o": {"k": None, "l": "m"},
            "b": None,
            "later": 9007199254740993,
            "none": None,
        },
        {
            "text": "c",
            "n": 9223372036854775807,
            "x": None,
            "t": None,
            "o": None,
            "b": False,
            "later": None,
            "none": None,
        },
        {"text": "d", "n": None, "x": None, "t": None, "o": None, "b": None, "later": None, "none": None},
    ]


def test_columns_that_disagree_become_json_text(tmp_path: Path) -> None:
    data = b"\n".join(b'{"text":"a","m":%s}' % value for value in (b"1.50", b'"x"', b"[1, 2]", b"null", b"{}"))
    assert [row["m"] for row in table_of(tmp_path, data)] == ["1.50", '"x"', "[1, 2]", None, "{}"]


@pytest.mark.parametrize("text", ["\U00020000", "\U0010ffff", "🙂", "é\u2028"])
def test_escaped_characters_become_themselves(tmp_path: Path, text: str) -> None:
    """arrow-json alone would make U+10000 of U+20000."""
    (row,) = table_of(tmp_path, json.dumps({"text": text, "n": 1}).encode())
    assert row == {"text": text, "n": 1}


def written(objects: list[bytes], missing: list[bool] | None = None, column: str = "embedding") -> list[bytes]:
    reader = JsonlReader(stream_source(b"\n".join(objects)), ReadOptions(column="text"))
    (batch,) = reader.batches()
    out = io.BytesIO()
    n = len(objects)
    block = Block(batch.records, hash_rows(["a"] * n, 2), np.array(missing or [False] * n))
    JsonlWriter(WriteOptions(column, 2, reader.schema)).write([block], out)
    return out.getvalue().splitlines()


def test_records_pass_through_as_they_were_written() -> None:
    vector = b"[%s]" % b",".join(repr(float(x)).encode() for x in hash_rows(["a"], 2)[0].astype(str).astype(float))
    raw = b'{ "b" : 1.10 , "a": 12345678901234567890123, "text":"\\u00e9" , "a":null }'
    (line,) = written([raw])
    assert line == raw[:-2] + b',"embedding":' + vector + b"}"


def test_a_record_without_a_vector_has_null() -> None:
    assert written([b'{"text":""}', b"{ }"], [True, True]) == [b'{"text":"","embedding":null}', b'{"embedding":null}']


def test_a_column_name_is_escaped() -> None:
    (line,) = written([b'{"text":"a"}'], [True], column='a "b"\n')
    assert line == rb'{"text":"a","a \"b\"\n":null}'


@pytest.mark.parametrize("dimensions", [1, 7])
def test_floats_come_back_bit_for_bit(dimensions: int) -> None:
    bits = np.random.default_rng(5).integers(0, 2**32, (10_000, dimensions), dtype=np.uint32)
    rows = bits.view(np.float32)
    rows[~np.isfinite(rows)] = -0.0
    from tandem.bulk.jsonl import vector_texts

    back = np.array([[float(x) for x in text[1:-1].split(b",")] for text in vector_texts(rows)]).astype(np.float32)
    assert np.array_equal(back.view(np.uint32), rows.view(np.uint32))
