"""The safetensors reader on files written by hand: every dtype, every kind of damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tandem.errors import ModelBroken
from tandem.models.safetensors import SafetensorsFile
from tests.tiny_models import write_safetensors

VALUES = np.array([[0.0, -1.5, 3.25], [1e-3, 65504.0, -2.0]], np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def write_raw(path: Path, header: Any, data: bytes = b"") -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_floats_are_read_as_float32(path: Path, dtype: type[np.floating[Any]]) -> None:
    write_safetensors(path, {"a": VALUES.astype(dtype)})
    read = SafetensorsFile(path).read("a")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, VALUES.astype(dtype).astype(np.float32))


def test_bfloat16_is_the_upper_half_of_float32(path: Path) -> None:
    bits = (VALUES.view(np.uint32) >> 16).astype(np.uint16)
    write_safetensors(path, {"a": bits})
    np.testing.assert_array_equal(SafetensorsFile(path).read("a"), (bits.astype(np.uint32) << 16).view(np.float32))


def test_a_float32_tensor_is_a_view_of_the_file(path: Path) -> None:
    write_safetensors(path, {"a": VALUES})
    read = SafetensorsFile(path).read("a")
    assert not read.flags.owndata
    assert not read.flags.writeable


def test_a_view_outlives_its_reader(path: Path) -> None:
    write_safetensors(path, {"a": VALUES})
    file = SafetensorsFile(path)
    view = file.read("a")
    del file
    np.testing.assert_array_equal(view, VALUES)


def test_parts_are_equal_slices_of_rows(path: Path) -> None:
    fused = np.arange(24, dtype=np.float32).reshape(6, 4)
    write_safetensors(path, {"before": VALUES, "fused": fused})
    file = SafetensorsFile(path)
    for part in range(3):
        np.testing.assert_array_equal(file.read("fused", part, 3), fused[2 * part : 2 * part + 2])


def test_names_and_shapes_come_from_the_header(path: Path) -> None:
    write_safetensors(path, {"a": VALUES, "b": np.arange(4)})
    file = SafetensorsFile(path)
    assert file.names() == ("a", "b")
    assert (file.shape("a"), file.dtype("a"), file.dtype("b")) == ((2, 3), "F32", "I64")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, r"truncated: tensor 'a' ends at byte 8 of 4"),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}, r"'a' has 4 bytes"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, r"'a'"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, r"'a'"),
        ({"a": {"dtype": "F32"}}, r"header is damaged"),
        ([1, 2], r"header is damaged"),
    ],
)
def test_a_damaged_file_is_named_and_not_read(path: Path, header: Any, reason: str) -> None:
    write_raw(path, header, b"\0\0\0\0")
    with pytest.raises(ModelBroken, match=rf"model\.safetensors: .*{reason}"):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x10", b"\xff" * 64, b"\x80\x02}q\x00" * 10, (50).to_bytes(8, "little") + b"{}"]
)
def test_what_is_no_safetensors_is_broken(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelBroken, match=r"model\.safetensors"):
        SafetensorsFile(path)


def test_a_missing_file_is_broken(path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"can not be read"):
        SafetensorsFile(path)
