"""What instances write to Redis for each other, byte for byte, and how rubbish is told from it.

Everything is one frame: what it is, whose it is, its content, a digest::

    kind 2 | version 1 | scope 8 | content | digest 8        little end first

The digest is BLAKE2b over all before it. With a ``secret`` it is keyed, and what somebody wrote who has Redis but not
the secret counts as corrupted; without one it guards against accidents alone. Nothing is decoded by a general
serializer: whatever the bytes are, the worst they can do is be dropped.

One announcement of an int8 signature of 384 dimensions takes 436 bytes, 384 of them the signature.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from tandem.caching.base import Key

StreamId: TypeAlias = tuple[int, int]
"""An entry's place in a stream: milliseconds and a number, in Redis' own order."""

START: StreamId = (0, 0)
"""Before the first entry."""

KEY_BYTES = 16
INSTANCE_BYTES = 8

_VERSION = 1
_TAG_BYTES = _DIGEST_BYTES = 8
_HEAD_BYTES = 3 + _TAG_BYTES
_FRAME_BYTES = _HEAD_BYTES + _DIGEST_BYTES
_WORD = struct.Struct(f"<B{INSTANCE_BYTES}sQ{KEY_BYTES}s")
_COUNT = struct.Struct("<I")
_RECORD = struct.Struct(f"<{KEY_BYTES}sH")
_MANIFEST = struct.Struct(f"<{INSTANCE_BYTES}sQQIQ")
_MOST_U64 = 2**64 - 1


class Fault(StrEnum):
    """Why a frame was dropped."""

    OVERLONG = "overlong"
    MALFORMED = "malformed"
    FOREIGN = "foreign"
    CORRUPTED = "corrupted"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Who share a cache: instances of one ``model`` (its fingerprint) that serve one tenant's ``namespace`` and write
    signatures of one kind (``codec``, by name) and length. Instances that differ in any of it never meet."""

    model: str
    namespace: str
    codec: str
    signature_bytes: int

    def id(self) -> bytes:
        """16 bytes, a hash of all fields."""
        state = hashlib.blake2b(digest_size=16)
        for field in ("federation", self.model, self.namespace, self.codec, str(self.signature_bytes)):
            content = field.encode("utf-8", "surrogatepass")
            state.update(len(content).to_bytes(8, "little") + content)
        return state.digest()


class Addition(msgspec.Struct, frozen=True):
    """An entry as others need it: its ``key``; its ``signature``, a row as the scope's codec stores it; a ``note``,
    token ids or whatever else the caller wants to have at hand. Its value is not here but in the second level."""

    key: Key
    signature: bytes
    note: bytes = b""


class Announcement(msgspec.Struct, frozen=True):
    """One entry of the stream: ``what`` is an Addition, or the key that was removed. ``wall_s`` is the origin's
    calendar: when the addition was announced, which is shown to people and decides nothing, or when the key was
    removed. It travels in whole milliseconds."""

    what: Addition | Key
    origin: bytes
    wall_s: float


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot is made of: ``chunks`` of it under the name ``snapshot``; it holds all that was announced up to
    ``covers``."""

    snapshot: bytes
    covers: StreamId
    chunks: int
    entries: int


class Wire:
    """Frames of one scope. ``secret`` has at most 64 bytes, ``note_bytes`` are at most 65,535."""

    def __init__(self, scope: Scope, *, secret: bytes = b"", note_bytes: int = 4096) -> None:
        self.scope = scope
        self.note_bytes = note_bytes
        self._tag = scope.id()[:_TAG_BYTES]
        self._begun = hashlib.blake2b(key=secret, digest_size=_DIGEST_BYTES)
        self._longest = _FRAME_BYTES + _WORD.size + scope.signature_bytes + note_bytes

    def announcement(self, announced: Announcement) -> bytes:
        """Raises ValueError for a key, signature or note of another length than the scope's."""
        what, wall_ms = announced.what, min(max(int(announced.wall_s * 1000), 0), _MOST_U64)
        if isinstance(what, bytes):
            self.require(what)
            return self._sealed(b"fA", _WORD.pack(0, announced.origin, wall_ms, what))
        self._check(what)
        return self._sealed(b"fA", _WORD.pack(1, announced.origin, wall_ms, what.key), what.signature, what.note)

    def read_announcement(self, data: bytes) -> Announcement | Fault:
        """The announcement, or why it is none of ours."""
        content = self._opened(b"fA", data, self._longest)
        if isinstance(content, Fault):
            return content
        if len(content) < _WORD.size:
            return Fault.MALFORMED
        adds, origin, wall_ms, key = _WORD.unpack_from(content)
        rest = content[_WORD.size :]
        if adds == 0 and not rest:
            return Announcement(key, origin, wall_ms / 1000)
        if adds != 1 or len(rest) < self.scope.signature_bytes:
            return Fault.MALFORMED
        signature, note = rest[: self.scope.signature_bytes], rest[self.scope.signature_bytes :]
        return Announcement(Addition(key, signature, note), origin, wall_ms / 1000)

    def chunk(self, additions: Sequence[Addition]) -> bytes:
        """A part of a snapshot, complete in itself. Raises ValueError as ``announcement`` does."""
        parts = [_COUNT.pack(len(additions))]
        for addition in additions:
            self._check(addition)
            parts += (_RECORD.pack(addition.key, len(addition.note)), addition.signature, addition.note)
        return self._sealed(b"fC", *parts)

    def read_chunk(self, data: bytes, longest: int) -> list[Addition] | Fault:
        """All of it, or nothing: a chunk is as good as its digest."""
        content = self._opened(b"fC", data, longest)
        if isinstance(content, Fault):
            return content
        if len(content) < _COUNT.size:
            return Fault.MALFORMED
        additions: list[Addition] = []
        place, width = _COUNT.size, self.scope.signature_bytes
        while place + _RECORD.size + width <= len(content):
            key, note_bytes = _RECORD.unpack_from(content, place)
            middle = place + _RECORD.size + width
            place = middle + note_bytes
            additions.append(Addition(key, content[middle - width : middle], content[middle:place]))
        whole = place == len(content) and len(additions) == _COUNT.unpack_from(content)[0]
        return additions if whole else Fault.MALFORMED

    def manifest(self, manifest: Manifest) -> bytes:
        content = _MANIFEST.pack(manifest.snapshot, *manifest.covers, manifest.chunks, manifest.entries)
        return self._sealed(b"fM", content)

    def read_manifest(self, data: bytes) -> Manifest | Fault:
        content = self._opened(b"fM", data, _FRAME_BYTES + _MANIFEST.size)
        if isinstance(content, Fault):
            return content
        if len(content) != _MANIFEST.size:
            return Fault.MALFORMED
        snapshot, milliseconds, number, chunks, entries = _MANIFEST.unpack(content)
        return Manifest(snapshot, (milliseconds, number), chunks, entries)

    def value(self, key: Key, payload: bytes) -> bytes:
        """A value as it lies under ``key``: it knows its key, so that it can not be moved under another one."""
        self.require(key)
        return self._sealed(b"fV", key, payload)

    def read_value(self, key: Key, data: bytes, longest: int) -> bytes | Fault:
        """``payload``, of at most ``longest`` bytes."""
        content = self._opened(b"fV", data, _FRAME_BYTES + KEY_BYTES + longest)
        if isinstance(content, Fault):
            return content
        return content[KEY_BYTES:] if content[:KEY_BYTES] == key else Fault.FOREIGN

    def require(self, key: Key, note: bytes = b"") -> None:
        """Raises ValueError for a key or a note of a length that is not sent."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"keys have {KEY_BYTES} bytes, not {len(key)}")
        if len(note) > self.note_bytes:
            raise ValueError(f"notes have at most {self.note_bytes} bytes, not {len(note)}")

    def _check(self, addition: Addition) -> None:
        self.require(addition.key, addition.note)
        if len(addition.signature) != self.scope.signature_bytes:
            raise ValueError(f"signatures have {self.scope.signature_bytes} bytes, not {len(addition.signature)}")

    def _sealed(self, kind: bytes, *content: bytes) -> bytes:
        frame = b"".join((kind, bytes([_VERSION]), self._tag, *content))
        return frame + self._digest(frame)

    def _opened(self, kind: bytes, data: bytes, longest: int) -> bytes | Fault:
        """The content. What is not ours is told first: another tenant's frame is sound, and has another digest's key
        perhaps, but it is not for us."""
        if len(data) > longest:
            return Fault.OVERLONG
        if len(data) < _FRAME_BYTES or data[:3] != kind + bytes([_VERSION]):
            return Fault.MALFORMED
        if data[3:_HEAD_BYTES] != self._tag:
            return Fault.FOREIGN
        expected = self._digest(memoryview(data)[:-_DIGEST_BYTES])
        if not hmac.compare_digest(expected, data[-_DIGEST_BYTES:]):
            return Fault.CORRUPTED
        return data[_HEAD_BYTES:-_DIGEST_BYTES]

    def _digest(self, frame: bytes | memoryview) -> bytes:
        state = self._begun.copy()
        state.update(frame)
        return state.digest()
