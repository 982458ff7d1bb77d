from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from arro3.core import Schema

from tandem.bulk.base import Block, WriteOptions
from tandem.bulk.npy import HEADER_BYTES, NpyWriter, npy_header
from tandem.bulk.txt import TxtRecords
from tests.unit.bulk.jobs import hash_rows


@pytest.mark.parametrize(("n", "dimensions"), [(0, 1), (1, 384), (10**15, 16384)])
def test_the_header_is_numpys_and_of_one_size(n: int, dimensions: int) -> None:
    header = npy_header(n, dimensions)
    assert len(header) == HEADER_BYTES
    file = io.BytesIO(header)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((n, dimensions), False, np.dtype("<f4"))


def test_blocks_follow_each_other_and_missing_rows_are_nan(tmp_path: Path) -> None:
    rows = hash_rows(["a", "b", "c", "d"])
    records = TxtRecords("text", ["x", "y"])
    blocks = [
        Block(records, rows[:2], np.array([False, False])),
        Block(records, rows[2:], np.array([True, False])),
    ]
    path = tmp_path / "out.npy"
    with path.open("wb") as out:
        NpyWriter(WriteOptions("embedding", 4, lambda: Schema([]))).write(blocks, out)
    found = np.load(path, mmap_mode="r")
    assert found.dtype == np.float32
    assert np.array_equal(found[[0, 1, 3]], rows[[0, 1, 3]])
    assert np.isnan(found[2]).all()


def test_no_rows_is_an_array_too(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    with path.open("wb") as out:
        NpyWriter(WriteOptions("embedding", 4, lambda: Schema([]))).write([], out)
    assert np.load(path).shape == (0, 4)
