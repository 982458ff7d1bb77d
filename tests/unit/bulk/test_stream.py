from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tandem.bulk.options import JobOptions, OnError
from tandem.errors import BackendFailed, JobError
from tandem.types import Rows
from tests.unit.bulk.jobs import (
    SMALL,
    Heard,
    expected,
    hash_rows,
    job,
    refuse,
    rows_of,
    run,
    stream_source,
    vectors_of,
    with_options,
    write_input,
)

LINES = b"".join(b"text %d\n" % number for number in range(10))
TEXTS: list[str | None] = [f"text {number}" for number in range(10)]


def streamed(data: bytes, output: Path | None, input_format: str = "txt") -> JobOptions:
    return JobOptions(
        source=stream_source(data),
        input_format=input_format,
        output=output,
        output_format="jsonl" if output is None else output.suffix[1:],
        stdout=io.BytesIO() if output is None else None,
        window=SMALL,
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".npy", ".parquet"])
def test_from_a_pipe_into_a_file(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    summary = run(streamed(LINES, output))
    assert summary.records == 10
    assert vectors_of(output) == expected(TEXTS)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("data", "input_format"), [(LINES, "txt"), (b"id,text\n1,a\n2,b\n", "csv"), (b'{"id":1,"text":"a"}\n', "jsonl")]
)
def test_from_a_pipe_into_a_pipe(tmp_path: Path, data: bytes, input_format: str) -> None:
    options = streamed(data, None, input_format)
    run(options)
    assert isinstance(options.stdout, io.BytesIO)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(options.stdout.getvalue())
    texts = [row["text"] for row in rows_of(copy)]
    assert vectors_of(copy) == expected(list(texts))


def test_csv_from_a_pipe_into_parquet_has_columns(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    run(streamed(b"id,text\n007,a\n", output, "csv"))
    assert rows_of(output) == [{"id": "007", "text": "a"}]


def test_json_from_a_pipe_into_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"save the input to a file first, or write \.jsonl"):
        run(streamed(b'{"text":"a"}\n', tmp_path / "out.parquet", "jsonl"))


def test_a_faulty_row_stops_a_stream_after_what_came_before() -> None:
    options = streamed(b"a\nb\nc\nd\n\ne\n", None)
    with pytest.raises(JobError, match="standard input, line 5: the text is empty"):
        run(options)
    assert isinstance(options.stdout, io.BytesIO)
    assert options.stdout.getvalue().count(b"\n") == 3


@pytest.mark.parametrize(("policy", "rows"), [(OnError.SKIP, ["a", "b"]), (OnError.NULL, ["a", None, None, "b"])])
def test_policies_on_rows(tmp_path: Path, policy: OnError, rows: list[str | None]) -> None:
    output = tmp_path / "out.jsonl"
    summary = run(with_options(streamed(b"a\n\nbad\nb\n", output), on_error=policy), refuse("bad"))
    assert (summary.records, summary.without) == (4, 2)
    assert vectors_of(output) == expected(rows)


def test_a_stream_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def embed(texts: list[str]) -> Rows:
        if "text 5" in texts:
            raise BackendFailed("gone")
        return hash_rows(texts)

    for suffix in (".jsonl", ".npy", ".parquet"):
        with pytest.raises(BackendFailed):
            run(streamed(LINES, tmp_path / f"out{suffix}"), embed)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_does_not_take_the_place_of_an_unfinished_job(tmp_path: Path) -> None:
    source, output = write_input(tmp_path / "in.txt", ["a"] * 9), tmp_path / "out.npy"

    def embed(texts: list[str]) -> Rows:
        raise BackendFailed("gone")

    with pytest.raises(BackendFailed):
        run(job(source, output), embed)
    with pytest.raises(JobError, match="holds an unfinished job; --restart throws it away"):
        run(streamed(LINES, output))
    run(with_options(streamed(LINES, output), restart=True))
    assert np.load(output).shape[0] == 10


def test_an_output_that_exists_is_kept_unless_asked(tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    output.write_bytes(b"precious")
    with pytest.raises(JobError, match="--overwrite"):
        run(streamed(LINES, output))
    assert output.read_bytes() == b"precious"
    run(with_options(streamed(LINES, output), overwrite=True))
    assert np.load(output).shape[0] == 10


def test_a_reader_that_has_enough_is_no_job_error() -> None:
    class Closed(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        run(with_options(streamed(LINES, None), stdout=Closed()))


def test_an_empty_stream(tmp_path: Path) -> None:
    heard = Heard()
    assert run(streamed(b"", tmp_path / "out.npy"), heard=heard).records == 0
    assert np.load(tmp_path / "out.npy").shape == (0, 4)
