"""Snapshots are whole or not there, and anything else is refused."""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.vectors import INDEXES, IndexOptions, SnapshotBroken, load_index, save_index
from tandem.vectors.snapshot import SnapshotWriter
from tests.unit.vectors.rows import DIMS, made

OPTIONS = IndexOptions(dims=DIMS, background=False)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    index = INDEXES.get("hnsw")(OPTIONS)
    index.add(np.arange(50), made(50))
    save_index(index, tmp_path / "index")
    return tmp_path / "index"


def test_every_cut_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in [*range(0, 60, 7), *range(60, len(whole), 997), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(SnapshotBroken):
            load_index(saved, OPTIONS)


def test_every_changed_byte_is_refused(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    for place in [*range(0, len(whole), 501), *range(len(whole) - 40, len(whole))]:
        whole[place] ^= 0x10
        saved.write_bytes(whole)
        with pytest.raises(SnapshotBroken):
            load_index(saved, OPTIONS)
        whole[place] ^= 0x10
    saved.write_bytes(whole)
    assert len(load_index(saved, OPTIONS)) == 50


@pytest.mark.parametrize("size", [0, 5, 36, 100_000])
def test_rubbish_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "rubbish").write_bytes(np.random.default_rng(1).bytes(size))
    with pytest.raises(SnapshotBroken, match="no snapshot"):
        load_index(tmp_path / "rubbish", OPTIONS)


def test_no_file_is_another_matter(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_index(tmp_path / "none", OPTIONS)


def proven(contents: object) -> bytes:
    """A file whose checksum is right, whatever it says of itself."""
    encoded = msgspec.json.encode(contents)
    body = b"TANDEMVX" + encoded + struct.pack("<I", len(encoded))
    return body + blake2b(body, digest_size=16).digest() + b"TANDEMVX"


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"version": 1}, "version 1"),
        ({"version": "old"}, "another version"),
        ({"dims": 3}, "dims 3, not 16"),
        ({"storage": "float16"}, "storage float16, not int8"),
        ({"parts": [{"name": "ids", "dtype": "int64", "shape": [99], "offset": 8}]}, "outside"),
        ({"parts": [{"name": "ids", "dtype": "int64", "shape": [-1], "offset": 8}]}, "outside"),
        ({"parts": [{"name": "ids", "dtype": "object", "shape": [1], "offset": 8}]}, "outside"),
        ({"parts": []}, "no part 'ids'"),
        ({"parts": [], "kind": "sharded"}, "no part 'centroids'"),
    ],
)
def test_a_file_that_is_sound_but_says_other_things_is_refused(
    tmp_path: Path, changed: dict[str, Any], about: str
) -> None:
    contents = {"version": 2, "kind": "plain", "dims": DIMS, "storage": "int8", "parts": [], **changed}
    (tmp_path / "index").write_bytes(proven(contents))
    with pytest.raises(SnapshotBroken, match=about):
        load_index(tmp_path / "index", OPTIONS)


def part_file(path: Path, kind: str, parts: dict[str, NDArray[Any]]) -> None:
    with SnapshotWriter(path, kind, OPTIONS) as file:
        for name, array in parts.items():
            file.part(name, array)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("plain", {"ids": np.arange(3), "codes": np.ones((2, DIMS), np.int8)}),
        ("plain", {"ids": np.array([-1]), "codes": np.ones((1, DIMS), np.int8)}),
        ("plain", {"ids": np.arange(1), "codes": np.zeros((1, DIMS), np.int8)}),
        ("plain", {"graph": np.arange(99, dtype=np.uint8)}),
        ("sharded", {"centroids": np.ones((1, 3), np.float32)}),
        ("sharded", {"centroids": np.empty((0, DIMS), np.float32)}),
        ("sharded", {"centroids": np.ones((2, DIMS), np.float32), "0/ids": np.arange(0)}),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, kind: str, parts: dict[str, NDArray[Any]]) -> None:
    part_file(tmp_path / "index", kind, parts)
    with pytest.raises(SnapshotBroken):
        load_index(tmp_path / "index", OPTIONS)


def test_a_write_that_fails_leaves_the_old_one(saved: Path) -> None:
    before = saved.read_bytes()

    def fails() -> None:
        with SnapshotWriter(saved, "plain", OPTIONS) as file:
            file.part("ids", np.arange(1000))
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fails()
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["index"]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_index(INDEXES.get("linear")(OPTIONS), tmp_path / "none" / "index")
