"""Float32 rows as text: exact, short, and fair to other callers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tandem.server.encode import SLICE_BYTES, Row, as_base64, as_json, join

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays(np.float32, st.integers(1, 40), elements=floats32))
def test_json_reads_back_as_the_same_float32(row: Row) -> None:
    read = np.array(json.loads(as_json(row)), np.float32)
    assert np.array_equal(read, row)


@given(arrays(np.float32, st.integers(1, 40), elements=floats32))
def test_base64_reads_back_as_the_same_bytes(row: Row) -> None:
    assert base64.b64decode(json.loads(as_base64(row))) == row.astype("<f4").tobytes()


def test_a_unit_row_takes_no_more_digits_than_float32_has() -> None:
    row = np.random.default_rng(0).standard_normal(384).astype(np.float32)
    row /= np.linalg.norm(row)
    assert len(as_json(row)) / 384 < 13


def test_rows_of_tokens_become_lists_of_lists() -> None:
    assert json.loads(as_json(np.array([[1.5, -2.0], [0.25, 3.0]], np.float32))) == [[1.5, -2.0], [0.25, 3.0]]


async def test_join_separates_by_commas() -> None:
    assert await join(iter([b"1", b"2", b"3"])) == b"1,2,3"
    assert await join(iter([])) == b""


@pytest.mark.parametrize("slices", [1, 3])
async def test_other_callers_run_between_the_slices_of_a_long_reply(slices: int) -> None:
    turns = []

    async def other() -> None:
        for turn in range(100):
            turns.append(turn)
            await asyncio.sleep(0)

    def pieces() -> Iterator[bytes]:
        for _ in range(slices):
            yield b"x" * SLICE_BYTES

    task = asyncio.create_task(other())
    await join(pieces())
    assert len(turns) == slices
    task.cancel()
