"""What a cache writes down, and the form of it on disk: msgpack, each record by itself."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import msgspec

from tandem.semantic.base import Namespace, Vector
from tandem.semantic.space import Entry
from tandem.semantic.verdicts import Label


class Stored(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """An entry. ``vector`` float32 little-endian; times by the calendar, as a monotonic clock ends with the machine."""

    namespace: Namespace
    serial: int
    id: str
    vector: bytes
    payload: bytes
    text: str | None
    stored_wall_s: float
    ttl_s: float | None

    @classmethod
    def of(cls, namespace: Namespace, entry: Entry, vector: Vector, wall_s: float, ttl_s: float | None) -> Stored:
        code = vector.astype("<f4").tobytes()
        return cls(namespace, entry.serial, entry.id, code, entry.payload, entry.text, wall_s, ttl_s)


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Entries of these ids are gone; None: all of the namespace, its labels included."""

    namespace: Namespace
    ids: list[str] | None


class Labelled(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    namespace: Namespace
    label: Label


Record: TypeAlias = Stored | Deleted | Labelled


class Recorder(Protocol):
    """Where records go. It does not raise for what a disk does: a cache goes on without."""

    def append(self, record: Record, takes_back: bool) -> None:
        """When this returns, the end of the process loses nothing of it; the loss of power may. ``takes_back`` says
        that something written before is wrong from now on."""
        ...


class NoRecorder:
    """A cache in memory alone."""

    def append(self, record: Record, takes_back: bool) -> None:
        """Forgotten."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    return _ENCODER.encode(record)


def decode(body: bytes | memoryview) -> Record:
    """Raises msgspec.DecodeError, msgspec.ValidationError."""
    return _DECODER.decode(body)
