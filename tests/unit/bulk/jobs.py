"""What the tests of bulk jobs share: a model that is a hash, a job in one line, outputs read by others' code."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tandem.bulk.base import Source, Window
from tandem.bulk.job import run_job
from tandem.bulk.options import JobOptions, Summary
from tandem.bulk.pipeline import Embedding
from tandem.errors import InvalidInput
from tandem.types import Rows

DIMENSIONS = 4
SMALL = Window(records=3, size_bytes=1 << 20)

INPUTS = ("txt", "jsonl", "csv", "parquet")
OUTPUTS = ("parquet", "npy", "jsonl")


def hash_rows(texts: list[str], dimensions: int = DIMENSIONS) -> Rows:
    """The same text always has the same vector, and no other text has it."""
    digests = (hashlib.shake_128(text.encode()).digest(2 * dimensions) for text in texts)
    rows = [np.frombuffer(digest, "<i2") for digest in digests]
    return (np.array(rows, np.float32).reshape(len(texts), dimensions) / 32768).astype(np.float32)


def refuse(*refused: str) -> Callable[[list[str]], Rows]:
    """A model that can not take these texts, and says so for the whole call as a real one does."""

    def embed(texts: list[str]) -> Rows:
        for text in texts:
            if text in refused:
                raise InvalidInput(f"can not embed {text!r}")
        return hash_rows(texts)

    return embed


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None, int]] = []
        self.said: list[str] = []
        self.count = 0

    def phase(self, name: str, total: int | None, done: int = 0) -> None:
        self.phases.append((name, total, done))
        self.count = done

    def advance(self, n: int) -> None:
        self.count += n

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)

    def close(self) -> None:
        """Nothing is open."""


def file_source(path: Path) -> Source:
    return Source(path.name, path=path)


def stream_source(data: bytes | BinaryIO) -> Source:
    stream = io.BufferedReader(io.BytesIO(data)) if isinstance(data, bytes) else data
    return Source("standard input", stream=stream)


def job(source: Path, output: Path) -> JobOptions:
    """A job by its files' extensions, in windows of three."""
    return JobOptions(
        source=file_source(source),
        input_format=source.suffix[1:],
        output=output,
        output_format=output.suffix[1:],
        window=SMALL,
    )


def run(
    options: JobOptions,
    embed: Callable[[list[str]], Rows] = hash_rows,
    model: str = "hash",
    heard: Heard | None = None,
) -> Summary:
    return run_job(options, Embedding(embed, DIMENSIONS, {"model": model}), heard or Heard())


def with_options(options: JobOptions, **changes: Any) -> JobOptions:
    return replace(options, **changes)


def vectors_of(path: Path, column: str = "embedding") -> list[list[float] | None]:
    """The vectors in a finished output, None for a missing one, by numpy, json and pyarrow."""
    if path.suffix == ".npy":
        return [None if np.isnan(row).any() else row.tolist() for row in np.load(path)]
    if path.suffix == ".jsonl":
        vectors = [json.loads(line)[column] for line in path.read_bytes().splitlines()]
        return [None if vector is None else np.array(vector, np.float32).tolist() for vector in vectors]
    found: list[list[float] | None] = _parquet().read_table(path)[column].to_pylist()
    return found


def expected(texts: list[str | None]) -> list[list[float] | None]:
    return [None if text is None else hash_rows([text])[0].tolist() for text in texts]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The other columns of a .jsonl or .parquet output."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    else:
        rows = _parquet().read_table(path).to_pylist()
    return [{name: value for name, value in row.items() if name != "embedding"} for row in rows]


def write_input(path: Path, texts: list[str]) -> Path:
    """A well-formed input with these texts and, where the format has columns, a number column ``id``."""
    if path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"id": index, "text": text}) for index, text in enumerate(texts)]
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    else:
        pa = pytest.importorskip("pyarrow")
        table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())})
        _parquet().write_table(table, path, row_group_size=5)
    return path


def _parquet() -> Any:
    """The referee for Parquet; what is under test does without it."""
    return pytest.importorskip("pyarrow.parquet")
