"""What every row codec promises, and how close each stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.quantization import ROW_CODECS, RowCodec
from tandem.types import Rows

CODECS = [ROW_CODECS.get(name)() for name in ROW_CODECS]
SHAPES = st.tuples(st.integers(0, 5), st.integers(1, 33))
# Beyond these, products of float32 leave its range; embeddings are around 1.
NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: x == 0 or abs(x) > 2.0**-100)
every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def embeddings(n: int, dims: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)


def cosines(one: Rows, other: Rows) -> NDArray[np.float64]:
    a, b = one.astype(np.float64), other.astype(np.float64)
    found: NDArray[np.float64] = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return found


def test_names_are_the_registered_ones() -> None:
    assert [codec.name for codec in CODECS] == list(ROW_CODECS) == ["float32", "int16", "int8"]
    with pytest.raises(ConfigError, match="row codec"):
        ROW_CODECS.get("int4")


@every_codec
@given(rows=arrays.arrays(np.float32, SHAPES, elements=NUMBERS))
def test_rows_come_back(codec: RowCodec, rows: Rows) -> None:
    stored = codec.encode(rows)
    assert stored.dtype == np.uint8
    assert stored.shape == (len(rows), codec.row_bytes(rows.shape[1]))
    assert stored.flags.c_contiguous
    back = codec.decode(stored, rows.shape[1])
    assert back.dtype == np.float32
    assert back.shape == rows.shape
    assert back.flags.c_contiguous
    assert back.flags.writeable
    steps = {"float32": np.inf, "int16": 32767, "int8": 127}[codec.name]
    # Half a step of the row's own scale, and the roundings of float32.
    allowed = np.abs(rows).max(axis=1, keepdims=True, initial=0) * (0.5 / steps + 1e-6)
    assert np.all(np.abs(back - rows) <= allowed)


@every_codec
def test_what_is_decoded_is_the_callers(codec: RowCodec) -> None:
    rows = embeddings(3, 8)
    stored = codec.encode(rows).copy()
    back = codec.decode(stored, 8)
    kept = back.copy()
    stored[:] = 255
    np.testing.assert_array_equal(back, kept)


@every_codec
def test_a_reader_sees_what_is_stored_now_and_gives_copies(codec: RowCodec) -> None:
    rows = embeddings(4, 24)
    stored = np.zeros((4, codec.row_bytes(24)), np.uint8)
    read = codec.reader(stored, 24)
    assert not read(2).any()
    stored[:] = codec.encode(rows)
    for index, row in enumerate(codec.decode(stored, 24)):
        np.testing.assert_array_equal(read(index), row)
    kept = read(1)
    stored[:] = 0
    assert kept.dtype == np.float32
    assert kept.all()
    with pytest.raises(ValueError, match="stored rows are uint8"):
        codec.reader(stored, 23)


@every_codec
def test_a_row_depends_on_no_other(codec: RowCodec) -> None:
    rows = embeddings(4, 24)
    rows[2] *= 1e6
    alone = np.concatenate([codec.encode(rows[i : i + 1]) for i in range(4)])
    np.testing.assert_array_equal(codec.encode(rows), alone)
    np.testing.assert_array_equal(codec.encode(rows[::2]), alone[::2])
    np.testing.assert_array_equal(codec.decode(alone[1::2], 24), codec.decode(alone, 24)[1::2])


@every_codec
def test_another_width_is_refused(codec: RowCodec) -> None:
    stored = codec.encode(embeddings(2, 16))
    others: list[NDArray[Any]] = [stored[:, :-1], stored[0], stored.astype(np.int16)]
    for wrong in others:
        with pytest.raises(ValueError, match="stored rows are uint8"):
            codec.decode(wrong, 16)
    with pytest.raises(ValueError, match="stored rows are uint8"):
        codec.decode(stored, 17)


@every_codec
def test_a_zero_row_stays_zero(codec: RowCodec) -> None:
    rows = embeddings(2, 8)
    rows[0] = 0
    back = codec.decode(codec.encode(rows), 8)
    assert not back[0].any()
    assert back[1].any()


@every_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_row_is_never_mended(codec: RowCodec, bad: float) -> None:
    rows = embeddings(2, 8)
    rows[0, 3] = bad
    back = codec.decode(codec.encode(rows), 8)
    assert not np.isfinite(back[0]).all()
    assert np.isfinite(back[1]).all()


@pytest.mark.parametrize(("name", "loss"), [("float32", 0.0), ("int16", 2e-9), ("int8", 1e-4)])
def test_cosines_survive(name: str, loss: float) -> None:
    rows = embeddings(500, 384)
    codec = ROW_CODECS.get(name)()
    assert np.all(1 - cosines(rows, codec.decode(codec.encode(rows), 384)) <= loss + 1e-12)


def test_bytes_of_a_row() -> None:
    assert [codec.row_bytes(384) for codec in CODECS] == [1536, 772, 388]


def test_the_bytes_are_the_same_on_every_machine() -> None:
    rows = np.array([[1.0, -0.5, 0.25]], np.float32)
    peak = "0000803f"
    assert ROW_CODECS.get("float32")().encode(rows).tobytes().hex() == "0000803f000000bf0000803e"
    assert ROW_CODECS.get("int16")().encode(rows).tobytes().hex() == "ff7f00c00020" + peak
    assert ROW_CODECS.get("int8")().encode(rows).tobytes().hex() == "7fc020" + peak
