from __future__ import annotations

import datetime as dt
import decimal
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tandem.bulk.base import Block, ReadOptions, Window, WriteOptions
from tandem.bulk.parquet import ParquetReader, ParquetWriter
from tandem.errors import JobError
from tests.unit.bulk.jobs import SMALL, file_source, hash_rows, stream_source

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

BERLIN = dt.datetime(2020, 1, 1, 12, 30, 0, 123456, tzinfo=dt.UTC)

COLUMNS = {
    "text": pa.array(["a", "é\n🙂", "c", "d"]),
    "large": pa.array(["x", None, "", "z"], pa.large_string()),
    "view": pa.array(["x", None, "a string over twelve bytes", "z"], pa.string_view()),
    "binary": pa.array([b"\x00\xff", None, b"", b"x"]),
    "fixed_binary": pa.array([b"ab", None, b"cd", b"ef"], pa.binary(2)),
    "int8": pa.array([-128, None, 0, 127], pa.int8()),
    "uint64": pa.array([2**64 - 1, None, 0, 1], pa.uint64()),
    "float16": pa.array(np.array([0.5, 1, 2, 65504], np.float16)),
    "float64": pa.array([0.1, None, 1e300, float("inf")]),
    "bool": pa.array([True, None, False, True]),
    "zoned": pa.array([BERLIN, None, BERLIN, BERLIN], pa.timestamp("us", "Europe/Berlin")),
    "nanoseconds": pa.array([123456789, None, -1, 0], pa.timestamp("ns")),
    "date": pa.array([dt.date(1969, 12, 31), None, dt.date(2024, 2, 29), dt.date(1, 1, 1)]),
    "date64": pa.array([86_400_000, None, 0, -86_400_000], pa.date64()),
    "time": pa.array([5, None, 0, 1], pa.time64("ns")),
    "duration": pa.array([5, None, -5, 0], pa.duration("us")),
    "decimal": pa.array([decimal.Decimal("1.23"), None, decimal.Decimal("-9.99"), decimal.Decimal("0.00")]),
    "decimal256": pa.array([decimal.Decimal("1.23"), None, None, None], pa.decimal256(50, 2)),
    "dictionary": pa.array(["a", None, "b", "a"]).dictionary_encode(),
    "list": pa.array([[1, None], None, [], [3]]),
    "large_list": pa.array([["a"], None, [], [None]], pa.large_list(pa.string())),
    "fixed_list": pa.array([[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
    "struct": pa.array([{"a": 1, "b": [{"c": "x"}]}, None, {"a": None, "b": None}, {"a": 2, "b": []}]),
    "map": pa.array([[("k", 1)], None, [], [("l", None)]], pa.map_(pa.string(), pa.int32())),
    "null": pa.nulls(4),
}


def path_of(folder: Path, table: Any, row_group_size: int = 100) -> Path:
    path = folder / "in.parquet"
    parquet.write_table(table, path, row_group_size=row_group_size)
    return path


def copy(source: Path, output: Path, dimensions: int = 4) -> Any:
    """Read ``source`` in small windows and write it with vectors of its texts."""
    reader = ParquetReader(file_source(source), ReadOptions(window=SMALL))
    blocks = (
        Block(
            batch.records, hash_rows([text or "" for text in batch.texts], dimensions), np.zeros(len(batch.texts), bool)
        )
        for batch in reader.batches()
    )
    with output.open("wb") as out:
        ParquetWriter(WriteOptions("embedding", dimensions, reader.schema)).write(blocks, out)
    return parquet.read_table(output)


def test_every_column_type_survives(tmp_path: Path) -> None:
    source = path_of(tmp_path, pa.table(COLUMNS))
    before, after = parquet.read_table(source), copy(source, tmp_path / "out.parquet")
    assert after.column_names == [*before.column_names, "embedding"]
    for name in before.column_names:
        assert after[name].type == before[name].type, name
        assert after[name].equals(before[name]), name
    assert after["embedding"].type == pa.list_(pa.float32(), 4)
    assert after["embedding"].to_pylist() == hash_rows(["a", "é\n🙂", "c", "d"]).tolist()


def test_every_column_type_has_a_json_form(tmp_path: Path) -> None:
    reader = ParquetReader(file_source(path_of(tmp_path, pa.table(COLUMNS))), ReadOptions())
    (batch,) = reader.batches()
    rows = [json.loads(raw) for raw in batch.records.json_objects()]
    assert [row["text"] for row in rows] == ["a", "é\n🙂", "c", "d"]
    assert all(row.keys() == COLUMNS.keys() for row in rows)
    assert rows[0]["binary"] == "00ff"
    assert rows[0]["uint64"] == 2**64 - 1
    assert rows[0]["zoned"] == "2020-01-01T13:30:00.123456+01:00"
    assert rows[0]["struct"] == {"a": 1, "b": [{"c": "x"}]}
    assert rows[0]["map"] == {"k": 1}
    assert rows[0]["date64"] == "1970-01-02"
    assert rows[3]["float64"] is None  # JSON has no infinity.


def test_names_metadata_and_nullability_survive(tmp_path: Path) -> None:
    fields = [pa.field("text", pa.string(), nullable=False), pa.field("n", pa.int32(), metadata={"unit": "m"})]
    table = pa.table([["a"], [1]], schema=pa.schema(fields, metadata={"geo": "{}", "pandas": "{}"}))
    copy(path_of(tmp_path, table), tmp_path / "out.parquet")
    schema = parquet.read_schema(tmp_path / "out.parquet")
    assert not schema.field("text").nullable
    assert schema.field("n").metadata[b"unit"] == b"m"
    # In the file itself too, where readers that know no Arrow look.
    assert parquet.read_metadata(tmp_path / "out.parquet").metadata.items() >= {(b"geo", b"{}"), (b"pandas", b"{}")}


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_compressions(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"text": ["a", "b"] * 50}), path, compression=codec)
    reader = ParquetReader(file_source(path), ReadOptions())
    assert [text for batch in reader.batches() for text in batch.texts] == ["a", "b"] * 50


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_of_every_string_type(tmp_path: Path, kind: Any) -> None:
    texts = ["a", None, "a string over twelve bytes", ""]
    reader = ParquetReader(
        file_source(path_of(tmp_path, pa.table({"body": pa.array(texts).cast(kind)}))), ReadOptions()
    )
    (batch,) = reader.batches()
    assert reader.column == "body"
    assert batch.texts == ["a", None, "a string over twelve bytes", None]
    assert {batch.where(index): reason for index, reason in batch.reasons.items()} == {
        "row 2": "the text is null",
        "row 4": "the text is empty",
    }


@pytest.mark.parametrize("row_group_size", [1, 4, 1000])
def test_going_on_after_any_batch_gives_the_rest(tmp_path: Path, row_group_size: int) -> None:
    texts = [str(number) for number in range(1000)]
    path = path_of(tmp_path, pa.table({"text": texts}), row_group_size)
    reader = ParquetReader(file_source(path), ReadOptions(window=Window(records=300)))
    batches = list(reader.batches())
    assert [text for batch in batches for text in batch.texts] == texts
    for index, batch in enumerate(batches):
        rest = list(reader.batches(batch.end))
        assert [other.texts for other in rest] == [other.texts for other in batches[index + 1 :]]
        assert [other.end for other in rest] == [other.end for other in batches[index + 1 :]]


def test_windows_are_bounded_in_bytes(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"] * 2000, "image": [b"x" * 1000] * 2000})
    reader = ParquetReader(file_source(path_of(tmp_path, table)), ReadOptions(window=Window(size_bytes=500_000)))
    assert all(len(batch.texts) < 800 for batch in reader.batches())


def test_missing_vectors_are_null(tmp_path: Path) -> None:
    reader = ParquetReader(file_source(path_of(tmp_path, pa.table({"text": ["a", "b", "c"]}))), ReadOptions())
    (batch,) = reader.batches()
    with (tmp_path / "out.parquet").open("wb") as out:
        block = Block(batch.records, hash_rows(["a", "b", "c"]), np.array([False, True, False]))
        ParquetWriter(WriteOptions("v", 4, reader.schema)).write([block], out)
    first, second, third = parquet.read_table(tmp_path / "out.parquet")["v"].to_pylist()
    assert (first, second, third) == (hash_rows(["a"])[0].tolist(), None, hash_rows(["c"])[0].tolist())


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    source = path_of(tmp_path, pa.table({"text": ["a"] * 3000}))
    reader = ParquetReader(file_source(source), ReadOptions())
    blocks = (
        Block(batch.records, np.zeros((len(batch.texts), 4), np.float32), np.zeros(len(batch.texts), bool))
        for batch in reader.batches()
    )
    with (tmp_path / "out.parquet").open("wb") as out:
        ParquetWriter(WriteOptions("embedding", 4, reader.schema, record_bytes=1 << 20)).write(blocks, out)
    metadata = parquet.read_metadata(tmp_path / "out.parquet")
    assert metadata.num_rows == 3000
    assert max(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)) <= 256


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: b"", "is not Parquet"),
        (lambda data: b"id,text\n1,a\n", "is not Parquet"),
        (lambda data: data[:-30], "is cut off"),
        (lambda data: data[:-4] + b"PARE", "is encrypted"),
        (lambda data: data[:4] + b"\xff" * 40 + data[44:], "is damaged"),
    ],
    ids=["empty", "another format", "cut off", "encrypted", "overwritten"],
)
def test_files_that_can_not_be_read(tmp_path: Path, change: object, told: str) -> None:
    path = path_of(tmp_path, pa.table({"text": ["some words"] * 100}))
    assert callable(change)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(JobError, match=f"in.parquet {told}"):
        list(ParquetReader(file_source(path), ReadOptions()).batches())


def test_a_pipe_is_refused() -> None:
    with pytest.raises(JobError, match="can not come through a pipe"):
        ParquetReader(stream_source(b"PAR1"), ReadOptions())


def test_errors_of_blocks_and_file_come_out_as_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Left to themselves they would be Rust panics, with a backtrace on stderr."""
    reader = ParquetReader(file_source(path_of(tmp_path, pa.table({"text": ["a"] * 1000}))), ReadOptions())

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    def blocks(error: BaseException | None) -> object:
        for batch in reader.batches():
            yield Block(batch.records, np.zeros((len(batch.texts), 4), np.float32), np.zeros(len(batch.texts), bool))
            if error is not None:
                raise error

    writer = ParquetWriter(WriteOptions("embedding", 4, reader.schema))
    for error in (JobError("row 5"), KeyboardInterrupt(), OSError(5, "Input/output error")):
        with pytest.raises(type(error)) as caught:
            writer.write(blocks(error), io.BytesIO())  # type: ignore[arg-type]
        assert caught.value is error
    with pytest.raises(OSError, match="No space left"):
        writer.write(blocks(None), Full())  # type: ignore[arg-type]
    assert capfd.readouterr().err == ""
