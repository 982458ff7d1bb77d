"""A file far larger than memory allows goes through every pair of formats under a limit on memory."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tandem.bulk import readers, writers
from tandem.bulk.base import WINDOW
from tandem.bulk.options import JobOptions
from tandem.types import Rows
from tests.unit.bulk.jobs import DIMENSIONS, file_source, run

pytestmark = pytest.mark.stress

TEXT = "x" * 2000
RECORDS = 1_000_000
LIMIT_BYTES = 400 << 20
PAIRS = list(itertools.product(readers, writers))


def lines(suffix: str) -> Iterator[str]:
    if suffix == "csv":
        yield "id,text\n"
    for number in range(RECORDS):
        text = f"{number} {TEXT}"
        yield json.dumps({"id": number, "text": text}) + "\n" if suffix == "jsonl" else f"{number},{text}\n"


@pytest.fixture(scope="module", params=list(readers))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two gigabytes of texts."""
    path = tmp_path_factory.mktemp("big") / f"in.{request.param}"
    if request.param == "parquet":
        pa = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
        with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for first in range(0, RECORDS, 50_000):
                ids = range(first, first + 50_000)
                writer.write_table(pa.table({"id": ids, "text": [f"{number} {TEXT}" for number in ids]}, schema=schema))
    else:
        with path.open("w") as file:
            file.writelines(lines(str(request.param)))
    yield path
    path.unlink()


def constant_rows(texts: list[str]) -> Rows:
    return np.ones((len(texts), DIMENSIONS), np.float32)


def embed_in_little_memory(source: str, output: str) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    path, result = Path(source), Path(output)
    options = JobOptions(file_source(path), path.suffix[1:], result, result.suffix[1:], window=WINDOW)
    run(options, constant_rows)
    # Not getrusage: after a fork and exec it still remembers the parent's peak.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(f"{path.suffix} to {result.suffix}: peak {status['VmHWM'].strip()}", file=sys.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mapped memory under RLIMIT_DATA")
@pytest.mark.parametrize("suffix", list(writers))
def test_two_gigabytes_in_four_hundred_megabytes(source: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    process = multiprocessing.get_context("spawn").Process(
        target=embed_in_little_memory, args=(str(source), str(output))
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    assert source.stat().st_size > 4 * LIMIT_BYTES
    output.unlink()
