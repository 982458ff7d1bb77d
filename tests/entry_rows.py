"""Keys and entries for tests of second levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tandem.caching.base import Entry, Key
from tandem.caching.record import Records
from tandem.quantization import ROW_CODECS
from tandem.types import Tier

DIMS = 16
MODEL, OTHER_MODEL = b"model--1", b"model--2"


def keys(n: int, seed: int = 0) -> list[Key]:
    chance = np.random.default_rng(seed)
    return [chance.bytes(16) for _ in range(n)]


def entries(keys: Sequence[Key], dims: int = DIMS) -> list[Entry]:
    """One that says whose it is: its row and tokens follow from the key."""
    return [_entry(key, dims) for key in keys]


def _entry(key: Key, dims: int) -> Entry:
    number = int.from_bytes(key[:4], "little")
    row = np.random.default_rng(number).normal(size=dims).astype(np.float32)
    return Entry(row=row, tokens=number, tier=Tier.BF16 if number % 2 else Tier.FP32)


def records(namespace: bytes = MODEL, dims: int = DIMS, codec: str = "float32") -> Records:
    return Records(namespace, dims, ROW_CODECS.get(codec)())


def right(keys: Sequence[Key], found: Sequence[Entry | None]) -> list[bool]:
    """For each key whether there is an entry. Fails for one that is another key's, or damaged."""
    assert len(keys) == len(found)
    for key, entry in zip(keys, found, strict=True):
        if entry is not None:
            expected = _entry(key, len(entry.row))
            np.testing.assert_array_equal(entry.row, expected.row)
            assert (entry.tokens, entry.tier) == (expected.tokens, expected.tier)
    return [entry is not None for entry in found]
