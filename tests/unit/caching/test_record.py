"""What is kept comes back; whatever else lies there is told apart, and nothing of it is ever an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.caching.base import Entry
from tandem.caching.record import HEADER_BYTES, TIER_CODES, Fault, Records
from tandem.errors import ConfigError
from tandem.quantization import ROW_CODECS
from tandem.types import Tier

DIMS = 12
MODEL, OTHER_MODEL = b"model--1", b"model--2"
RNG = np.random.default_rng(3)
KEYS = [RNG.bytes(16) for _ in range(5)]
ENTRIES = [
    Entry(row=RNG.normal(size=DIMS).astype(np.float32), tokens=tokens, tier=tier)
    for tokens, tier in zip((0, 1, 77, 512, (1 << 32) - 1), [*Tier] * 3, strict=False)
]


def records(codec: str = "float32", namespace: bytes = MODEL, dims: int = DIMS) -> Records:
    return Records(namespace, dims, ROW_CODECS.get(codec)())


@pytest.mark.parametrize("codec", ROW_CODECS.names())
def test_what_is_kept_comes_back(codec: str) -> None:
    form = records(codec)
    stored = form.encode(KEYS, ENTRIES)
    found, faults = form.decode(KEYS, stored)
    assert faults == []
    codec_alone = ROW_CODECS.get(codec)()
    for entry, back, value in zip(ENTRIES, found, stored, strict=True):
        assert back is not None
        assert value is not None
        assert (back.tokens, back.tier) == (entry.tokens, entry.tier)
        np.testing.assert_array_equal(back.row, codec_alone.decode(codec_alone.encode(entry.row[None]), DIMS)[0])
        assert len(value) == form.length == HEADER_BYTES + codec_alone.row_bytes(DIMS)


def test_what_is_not_there_is_no_fault() -> None:
    form = records()
    stored = form.encode(KEYS, ENTRIES)
    found, faults = form.decode(KEYS, [None, stored[1], None, stored[3], None])
    assert [entry is not None for entry in found] == [False, True, False, True, False]
    assert faults == []
    assert form.decode([], []) == ([], [])


def fault_of(form: Records, key: bytes, value: bytes) -> Fault:
    found, faults = form.decode([key], [value])
    assert found == [None]
    return faults[0]


def test_each_wrong_row_is_told_apart() -> None:
    form = records("int8")
    good = bytes(form.encode(KEYS[:1], ENTRIES[:1])[0] or b"")
    assert fault_of(form, KEYS[0], b"") == Fault.FORMAT
    assert fault_of(form, KEYS[0], b"someone else's value, which is long enough to be one") == Fault.FORMAT
    assert fault_of(form, KEYS[0], bytes((good[0], good[1] + 1)) + good[2:]) == Fault.FORMAT, "a later version"
    assert fault_of(form, KEYS[0], good[:-1]) == Fault.LENGTH
    assert fault_of(form, KEYS[0], good + b"\0") == Fault.LENGTH
    assert fault_of(form, KEYS[0], good[:10]) == Fault.LENGTH
    assert fault_of(records("int8", OTHER_MODEL), KEYS[0], good) == Fault.MODEL
    assert fault_of(records("int8", dims=DIMS + 1), KEYS[0], good) == Fault.LENGTH
    assert fault_of(records("int16"), KEYS[0], good) == Fault.CODEC
    assert fault_of(form, KEYS[1], good) == Fault.DAMAGE, "the right row under another key"


def test_every_flipped_bit_is_found() -> None:
    form = records("int8")
    good = bytes(form.encode(KEYS[:1], ENTRIES[:1])[0] or b"")
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        found, faults = form.decode(KEYS[:1], [bytes(bad)])
        assert found == [None], f"bit {bit}"
        assert len(faults) == 1


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_rubbish_is_never_a_row_and_never_an_error(values: list[bytes]) -> None:
    form = records("int8")
    keys = [bytes(16)] * len(values)
    found, faults = form.decode(keys, values)
    assert found == [None] * len(values)
    assert len(faults) == len(values)


@given(st.integers(0, 4), st.integers(0, 60), st.binary(min_size=1, max_size=20))
def test_a_piece_of_rubbish_spoils_one_row_and_no_other(index: int, at: int, piece: bytes) -> None:
    form = records()
    stored = [bytes(value or b"") for value in form.encode(KEYS, ENTRIES)]
    bad = stored[index][:at] + piece + stored[index][at + len(piece) :]
    found, faults = form.decode(KEYS, [bad if i == index else value for i, value in enumerate(stored)])
    assert [entry is None for entry in found] == [i == index and bad != stored[i] for i in range(5)]
    assert len(faults) == (bad != stored[index])


def test_what_must_not_be_kept_is_not() -> None:
    form = records("int8")
    row = ENTRIES[0].row
    odd = [np.where(np.arange(DIMS) == 3, value, row).astype(np.float32) for value in (np.nan, np.inf, -np.inf)]
    entries = [Entry(row=bad, tokens=1, tier=Tier.FP32) for bad in [*odd, row[1:], row]]
    assert [value is None for value in form.encode(KEYS, entries)] == [True, True, True, True, False]
    assert form.encode(KEYS[:1], [Entry(row=row, tokens=1 << 32, tier=Tier.FP32)]) == [None]


def test_every_tier_has_a_number_of_its_own() -> None:
    assert set(TIER_CODES) == set(Tier)
    assert len(set(TIER_CODES.values())) == len(Tier)


def test_settings_that_no_header_can_say_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 bytes"):
        records(namespace=b"short")
    with pytest.raises(ConfigError, match="65535"):
        records(dims=1 << 16)
