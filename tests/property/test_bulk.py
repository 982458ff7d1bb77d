"""Whatever is in a file, what goes in comes out: every text in its place, every other value as it was."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.bulk.base import Batch, ReadOptions, Window
from tandem.bulk.csv_file import CsvReader
from tandem.bulk.journal import Identity, Plan, Survey, Terms
from tandem.bulk.json_types import learn, merge, type_of
from tandem.bulk.jsonl import JsonlReader, vector_texts
from tandem.bulk.options import OnError
from tandem.bulk.txt import TxtReader
from tandem.errors import BackendFailed
from tandem.types import Rows
from tests.unit.bulk.jobs import expected, file_source, hash_rows, job, rows_of, run, vectors_of, with_options

# Any code point that UTF-8 has.
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, min_size=1, max_size=20).filter(lambda text: not text.isspace())
WINDOWS = st.builds(Window, records=st.integers(1, 5), size_bytes=st.integers(1, 200))

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(CHARACTERS, max_size=8),
)
KEYS = st.text(CHARACTERS, min_size=1, max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def all_of(batches: Sequence[Batch]) -> list[str | None]:
    return [text for batch in batches for text in batch.texts]


def resumes_anywhere(reader: TxtReader | CsvReader | JsonlReader) -> None:
    batches = list(reader.batches())
    for index, batch in enumerate(batches):
        rest = list(reader.batches(batch.end))
        assert [(b.texts, b.end) for b in rest] == [(b.texts, b.end) for b in batches[index + 1 :]]


@given(st.lists(TEXTS.filter(lambda text: "\n" not in text and not text.endswith("\r"))), st.booleans(), WINDOWS)
def test_lines_of_text(texts: list[str], crlf: bool, window: Window) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "in.txt"
        path.write_bytes(b"\xef\xbb\xbf" + ("\r\n" if crlf else "\n").join([*texts, ""]).encode())
        reader = TxtReader(file_source(path), ReadOptions(window=window))
        assert all_of(list(reader.batches())) == texts
        resumes_anywhere(reader)


@given(st.data(), st.sampled_from(["\n", "\r\n"]), WINDOWS)
def test_rows_of_csv(data: st.DataObject, line_end: str, window: Window) -> None:
    names = data.draw(
        st.lists(st.text(CHARACTERS, max_size=5), max_size=3, unique=True).filter(lambda n: "text" not in n)
    )
    rows = data.draw(st.lists(st.tuples(TEXTS, *[st.text(CHARACTERS, max_size=9) for _ in names])))
    out = io.StringIO(newline="")
    # Under QUOTE_MINIMAL Python quotes only its own line end, and a bare \r stays in the open, which is no CSV.
    minimal = line_end != "\n" and data.draw(st.booleans())
    writer = csv.writer(out, lineterminator=line_end, quoting=csv.QUOTE_MINIMAL if minimal else csv.QUOTE_ALL)
    writer.writerows([("text", *names), *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "in.csv"
        path.write_bytes(out.getvalue().encode())
        reader = CsvReader(file_source(path), ReadOptions(window=window))
        batches = list(reader.batches())
        assert all_of(batches) == [row[0] for row in rows]
        objects = [json.loads(raw) for batch in batches for raw in batch.records.json_objects()]
        assert objects == [dict(zip(("text", *names), row, strict=True)) for row in rows]
        resumes_anywhere(reader)


@given(st.lists(st.tuples(TEXTS, st.dictionaries(KEYS, VALUES, max_size=3))), st.booleans(), WINDOWS)
def test_objects_of_json(rows: list[tuple[str, dict[str, Any]]], ascii_only: bool, window: Window) -> None:
    records = [{**others, "text": text} for text, others in rows]
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        path.write_bytes("\n".join(lines).encode())
        reader = JsonlReader(file_source(path), ReadOptions(column="text", window=window))
        batches = list(reader.batches())
        assert all_of(batches) == [text for text, _ in rows]
        assert [raw for batch in batches for raw in batch.records.json_objects()] == [line.encode() for line in lines]
        resumes_anywhere(reader)


def fits(value: Any, column: Any) -> bool:
    """Whether a Parquet value says the same as the JSON value it came from, under the documented rules."""
    if column == value and isinstance(column, bool) == isinstance(value, bool):
        return True
    if isinstance(value, list) and isinstance(column, list):
        return len(value) == len(column) and all(map(fits, value, column))
    if isinstance(value, dict) and isinstance(column, dict):
        return all(fits(value.get(name), inner) for name, inner in column.items()) and value.keys() <= column.keys()
    # A column whose values disagree holds JSON text.
    return isinstance(column, str) and json.loads(column) == value


@settings(max_examples=60)
@given(
    st.lists(st.tuples(TEXTS, st.dictionaries(st.sampled_from(["a", "b", "embedded"]), VALUES, max_size=3)), max_size=8)
)
def test_json_becomes_columns_and_nothing_is_lost(rows: list[tuple[str, dict[str, Any]]]) -> None:
    pytest.importorskip("pyarrow")
    records = [{"text": text, **others} for text, others in rows]
    with TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.jsonl", Path(folder) / "out.parquet"
        source.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
        run(with_options(job(source, output), column="text"))
        columns = rows_of(output)
        assert vectors_of(output) == expected([text for text, _ in rows])
        for record, row in zip(records, columns, strict=True):
            assert record.keys() <= row.keys()
            for name, column in row.items():
                assert fits(record.get(name), column), (name, record.get(name), column)


@given(VALUES, VALUES, VALUES)
def test_types_merge_in_any_order(one: Any, two: Any, three: Any) -> None:
    a, b, c = type_of(one), type_of(two), type_of(three)
    assert same(merge(a, b), merge(b, a))
    assert same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert merge(a, a) == a
    assert merge(merge(a, b), b) == merge(a, b)


def same(one: Any, other: Any) -> bool:
    """Equal but for the order of a struct's fields."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=5))
def test_learned_types_hold_every_record(records: list[dict[str, Any]]) -> None:
    types: dict[str, Any] = {}
    for record in records:
        learn(types, record, "here")
    for record in records:
        for name, value in record.items():
            assert merge(types[name], type_of(value)) == types[name]


@given(st.integers(1, 4), st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_as_text_are_exact(dimensions: int, values: list[float]) -> None:
    rows = np.array(values * dimensions, np.float32).reshape(-1, dimensions)
    back = np.array([json.loads(text) for text in vector_texts(rows)]).astype(np.float32)
    assert np.array_equal(back.view(np.uint32), rows.view(np.uint32))


@settings(max_examples=40)
@given(
    st.lists(st.one_of(TEXTS, st.just("")), min_size=1, max_size=30),
    st.lists(st.integers(0, 6), max_size=4),
    st.sampled_from(["jsonl", "npy", "parquet"]),
    st.sampled_from([OnError.SKIP, OnError.NULL]),
    WINDOWS,
)
def test_a_job_stopped_anywhere_any_number_of_times_gives_the_same(
    texts: list[str], stops: list[int], suffix: str, policy: OnError, window: Window
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    with TemporaryDirectory() as folder:
        source, whole, output = (Path(folder) / name for name in ("in.jsonl", f"whole.{suffix}", f"out.{suffix}"))
        source.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts), "utf-8")
        run(with_options(job(source, whole), on_error=policy, window=window))
        options = with_options(job(source, output), on_error=policy, window=window)
        for stop in stops:
            left = [stop]

            def embed(texts: list[str], left: list[int] = left) -> Rows:
                left[0] -= 1
                if left[0] < 0:
                    raise BackendFailed("stop here")
                return hash_rows(texts)

            try:
                run(options, embed)
            except BackendFailed:
                assert not output.exists()
            else:
                break
        if not output.exists():
            run(options)
        assert output.read_bytes() == whole.read_bytes()


@given(st.integers(0, 2**62), st.dictionaries(st.text(), st.text()), VALUES)
def test_a_plan_survives_its_journal(number: int, settings_: dict[str, str], value: Any) -> None:
    import msgspec

    found = Survey(number, 0, "text", {"column": type_of(value)}, 1)
    plan = Plan(Terms(Identity(number, number, "a", "b"), settings_), found)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    assert not math.isnan(number)
