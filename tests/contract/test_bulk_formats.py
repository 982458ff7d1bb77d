"""What every reader and every writer must do, whatever the format, and every pair of them in a whole job."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from tandem.bulk import readers, writers
from tandem.bulk.base import Block, Position, Reader, ReadOptions, Window, WriteOptions
from tandem.errors import JobError
from tests.unit.bulk.jobs import (
    DIMENSIONS,
    SMALL,
    expected,
    file_source,
    hash_rows,
    job,
    rows_of,
    run,
    vectors_of,
    write_input,
)

TEXTS = ["plain", 'quotes " and, commas', "ünïcödé 🙂 \u2028 \x00", "  spaces around  ", "tab\there", "last"] * 4
PAIRS = list(itertools.product(readers, writers))


@pytest.fixture(params=list(readers))
def input_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(writers))
def output_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_input(path: Path, window: Window = SMALL, reserved: str | None = None, learn: bool = False) -> Reader:
    return readers.get(path.suffix[1:])(file_source(path), ReadOptions(window=window, reserved=reserved, learn=learn))


def test_texts_come_in_order_and_whole(tmp_path: Path, input_format: str) -> None:
    reader = open_input(write_input(tmp_path / f"in.{input_format}", TEXTS))
    batches = list(reader.batches())
    assert [text for batch in batches for text in batch.texts] == TEXTS
    assert all(len(batch.texts) <= SMALL.records for batch in batches)
    assert [batch.end.records for batch in batches] == list(np.cumsum([len(batch.texts) for batch in batches]))


def test_a_second_pass_gives_the_same_batches(tmp_path: Path, input_format: str) -> None:
    reader = open_input(write_input(tmp_path / f"in.{input_format}", TEXTS))
    first, second = list(reader.batches()), list(reader.batches())
    assert [(b.texts, b.end, list(b.places)) for b in first] == [(b.texts, b.end, list(b.places)) for b in second]


def test_any_end_is_a_start(tmp_path: Path, input_format: str) -> None:
    path = write_input(tmp_path / f"in.{input_format}", TEXTS)
    batches = list(open_input(path).batches())
    for index, batch in enumerate(batches):
        rest = list(open_input(path).batches(batch.end))
        assert [(b.texts, b.end) for b in rest] == [(b.texts, b.end) for b in batches[index + 1 :]]


def test_windows_are_bounded_in_bytes_too(tmp_path: Path, input_format: str) -> None:
    path = write_input(tmp_path / f"in.{input_format}", ["x" * 1000] * 1200)
    batches = list(open_input(path, Window(records=10_000, size_bytes=300_000)).batches())
    assert sum(len(batch.texts) for batch in batches) == 1200
    assert all(len(batch.texts) <= 700 for batch in batches)


def test_records_can_be_picked(tmp_path: Path, input_format: str) -> None:
    reader = open_input(write_input(tmp_path / f"in.{input_format}", TEXTS), learn=True)
    batches = list(reader.batches())
    for batch in batches:
        mask = np.arange(len(batch.texts)) % 2 == 0
        kept = batch.records.keep(mask)
        assert len(kept) == mask.sum()
        assert kept.json_objects() == [
            raw for raw, wanted in zip(batch.records.json_objects(), mask, strict=True) if wanted
        ]
        assert sum(piece.num_rows for piece in kept.arrow()) == mask.sum()


def test_both_shapes_of_records_agree(tmp_path: Path, input_format: str) -> None:
    reader = open_input(write_input(tmp_path / f"in.{input_format}", TEXTS), learn=True)
    batches = list(reader.batches())
    for batch in batches:
        assert len(batch.records.json_objects()) == len(batch.records) == len(batch.texts)
        columns = [piece.column(reader.column).to_pylist() for piece in batch.records.arrow()]
        assert list(itertools.chain(*columns)) == batch.texts
        assert all(piece.schema == reader.schema() for piece in batch.records.arrow())


def test_the_vectors_column_must_be_free(tmp_path: Path, input_format: str) -> None:
    path = write_input(tmp_path / f"in.{input_format}", TEXTS)
    with pytest.raises(JobError, match="already has a column 'text'"):
        list(open_input(path, reserved="text").batches())


def test_a_missing_input_is_a_job_error(tmp_path: Path, input_format: str) -> None:
    with pytest.raises(JobError, match="can not read in"):
        list(open_input(tmp_path / f"in.{input_format}").batches())


def write(output: Path, blocks: Iterator[Block], reader: Reader) -> None:
    out: BinaryIO
    with output.open("wb") as out:
        options = WriteOptions("embedding", DIMENSIONS, reader.schema)
        writers.get(output.suffix[1:])(options).write(blocks, out)


def test_a_writer_keeps_order_and_marks_what_is_missing(tmp_path: Path, output_format: str) -> None:
    reader = open_input(write_input(tmp_path / "in.csv", TEXTS))
    output = tmp_path / f"out.{output_format}"

    def blocks() -> Iterator[Block]:
        for batch in reader.batches():
            missing = np.array([text == "last" for text in batch.texts])
            yield Block(batch.records, hash_rows([text or "" for text in batch.texts]), missing)

    write(output, blocks(), reader)
    assert vectors_of(output) == expected([None if text == "last" else text for text in TEXTS])


def test_a_writer_passes_on_what_its_blocks_raise(tmp_path: Path, output_format: str) -> None:
    reader = open_input(write_input(tmp_path / "in.csv", TEXTS))

    def blocks() -> Iterator[Block]:
        for batch in reader.batches():
            yield Block(batch.records, hash_rows(["a"] * len(batch.texts)), np.zeros(len(batch.texts), np.bool_))
            raise JobError("row 4 is broken")

    with pytest.raises(JobError, match="row 4 is broken"):
        write(tmp_path / f"out.{output_format}", blocks(), reader)


@pytest.mark.parametrize(("source", "output"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_a_job_of_every_pair(tmp_path: Path, source: str, output: str) -> None:
    path, result = write_input(tmp_path / f"in.{source}", TEXTS), tmp_path / f"out.{output}"
    assert run(job(path, result)).records == len(TEXTS)
    assert vectors_of(result) == expected(list(TEXTS))
    if output != "npy":
        rows = rows_of(result)
        assert [row["text"] for row in rows] == TEXTS
        if source != "txt":
            assert [int(row["id"]) for row in rows] == list(range(len(TEXTS)))


@pytest.mark.parametrize(("source", "output"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_no_rows_make_an_empty_output(tmp_path: Path, source: str, output: str) -> None:
    path, result = write_input(tmp_path / f"in.{source}", []), tmp_path / f"out.{output}"
    assert run(job(path, result)).records == 0
    assert vectors_of(result) == []
    if output == "npy":
        assert np.load(result).shape == (0, DIMENSIONS)


def test_a_position_is_plain_data() -> None:
    """It goes through the journal as JSON."""
    import msgspec

    position = Position(3, 40, 5)
    assert msgspec.json.decode(msgspec.json.encode(position), type=Position) == position
