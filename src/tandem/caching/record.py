"""The bytes of one stored row: a header that says what it is, then the codec's bytes.

::

    offset  bytes  field
         0      1  magic, 0x54
         1      1  version of this layout, 1
         2      2  codec, a hash of its name
         4      1  precision tier that computed the row
         5      1  zero
         6      2  dimensions, u16
         8      4  tokens of the text, u32
        12      8  namespace of the model
        20      8  BLAKE2b of the key, of bytes 0-19 and of the row
        28         the row, as the codec stores it

Integers are little-endian. The hash covers the key, so a row that lies under another row's key is found, whether a
client mixed up two answers or somebody renamed. It finds damage, it is no signature: who may write to the store can
forge a row. A CRC would be four bytes shorter; this one misses one damaged row in 2^64 and costs a microsecond.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from tandem.caching.base import Entry, Key
from tandem.errors import ConfigError
from tandem.quantization import RowCodec
from tandem.types import Rows, Tier

NAMESPACE_BYTES = 8
_MAGIC, _VERSION = 0x54, 1
_HASH_BYTES = 8
_HEADER = Struct("<BB2sBxHI8s")
HEADER_BYTES = _HEADER.size + _HASH_BYTES
# Numbers that are stored are never given to another tier, so they are written down and not counted from the enum.
TIER_CODES = {Tier.FP32: 1, Tier.BF16: 2}
_TIERS = {code: tier for tier, code in TIER_CODES.items()}


class Fault(StrEnum):
    """Why stored bytes are not a row of this model."""

    FORMAT = "format"
    """No row of ours, or one of another version."""
    LENGTH = "length"
    """Too short, too long, or of other dimensions."""
    CODEC = "codec"
    """Stored by another codec: the setting was changed, or the fleet does not agree on it."""
    MODEL = "model"
    """A row of another model."""
    DAMAGE = "damage"
    """Bytes have changed, or the row belongs to another key."""


class Records:
    """Entries to bytes and back, for one model and one codec."""

    def __init__(self, namespace: bytes, dims: int, codec: RowCodec) -> None:
        """``namespace``: 8 bytes that stand for the model (``KeySpace.namespace``); ``dims`` of its rows.

        Raises ConfigError for another length, or for dimensions that the header can not say.
        """
        if len(namespace) != NAMESPACE_BYTES:
            raise ConfigError(f"a namespace has {NAMESPACE_BYTES} bytes, not {len(namespace)}")
        if not 0 < dims < 1 << 16:
            raise ConfigError(f"stored rows have 1 to {(1 << 16) - 1} dimensions, not {dims}")
        self.namespace = namespace
        self.dims = dims
        self.codec = codec
        self.length = HEADER_BYTES + codec.row_bytes(dims)
        """Bytes of each record."""
        self._mark = hashlib.blake2b(codec.name.encode(), digest_size=2).digest()

    def encode(self, keys: Sequence[Key], entries: Sequence[Entry]) -> list[bytes | None]:
        """The record of each entry; None for one that must not be kept: of other dimensions, or with a NaN or infinity
        in it."""
        rows = np.zeros((len(entries), self.dims), np.float32)
        fits = [entry.row.shape == (self.dims,) and 0 <= entry.tokens < 1 << 32 for entry in entries]
        for index, entry in enumerate(entries):
            if fits[index]:
                rows[index] = entry.row
        finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(rows), axis=1)
        # They are not kept, and a codec is not asked what it makes of them.
        rows[~finite] = 0.0
        bodies = self.codec.encode(rows)
        return [
            self._record(key, entry, bodies[index].tobytes()) if fits[index] and finite[index] else None
            for index, (key, entry) in enumerate(zip(keys, entries, strict=True))
        ]

    def decode(self, keys: Sequence[Key], stored: Sequence[bytes | None]) -> tuple[list[Entry | None], list[Fault]]:
        """The entry of each key, and what was wrong with those that are None though bytes were there.

        Never raises for bytes, whatever they are. The rows are views of one array [n, d] of the call's own.
        """
        heads: list[tuple[int, Tier, int]] = []
        faults: list[Fault] = []
        bodies: list[bytes] = []
        for index, (key, value) in enumerate(zip(keys, stored, strict=True)):
            if value is None:
                continue
            head = self._read(key, value)
            if isinstance(head, Fault):
                faults.append(head)
            else:
                heads.append((index, *head))
                bodies.append(value[HEADER_BYTES:])
        found: list[Entry | None] = [None] * len(keys)
        if heads:
            rows = self._rows(bodies)
            finite = np.logical_and.reduce(np.isfinite(rows), axis=1).tolist()
            for row, whole, (index, tier, tokens) in zip(rows, finite, heads, strict=True):
                # The hash is no signature: who may write to the store can make one that fits anything.
                if whole:
                    found[index] = Entry(row=row, tokens=tokens, tier=tier)
                else:
                    faults.append(Fault.DAMAGE)
        return found, faults

    def _record(self, key: Key, entry: Entry, body: bytes) -> bytes:
        code = TIER_CODES[entry.tier]
        head = _HEADER.pack(_MAGIC, _VERSION, self._mark, code, self.dims, entry.tokens, self.namespace)
        return head + _digest(key, head, body) + body

    def _read(self, key: Key, value: bytes) -> Fault | tuple[Tier, int]:
        """Tier and tokens, if all is well."""
        # The version first: another one may have another length.
        if value[:2] != bytes((_MAGIC, _VERSION)):
            return Fault.FORMAT
        if len(value) < HEADER_BYTES:
            return Fault.LENGTH
        _, _, mark, code, dims, tokens, namespace = _HEADER.unpack_from(value)
        if namespace != self.namespace:
            return Fault.MODEL
        if mark != self._mark:
            return Fault.CODEC
        if dims != self.dims or len(value) != self.length:
            return Fault.LENGTH
        head = value[: _HEADER.size]
        if _digest(key, head, value[HEADER_BYTES:]) != value[_HEADER.size : HEADER_BYTES]:
            return Fault.DAMAGE
        tier = _TIERS.get(code)
        return Fault.FORMAT if tier is None else (tier, tokens)

    def _rows(self, bodies: Sequence[bytes]) -> Rows:
        stored = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
        return self.codec.decode(stored, self.dims)


def _digest(key: Key, head: bytes, body: bytes) -> bytes:
    # All lengths but the last are fixed for one reader: nothing can move across a seam.
    return hashlib.blake2b(b"".join((key, head, body)), digest_size=_HASH_BYTES).digest()
