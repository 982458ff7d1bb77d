"""What a worker and its process say to each other: small structs, one a packet.

The socket keeps the bounds of packets and tells the end of either side, so there is no framing and no heartbeat. Arrays
do not travel here; they lie in memory that both sides map (``slab.py``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from tandem.types import Output
from tandem.workers.base import DeviceFacts

# Well over the largest message, well under what a socket takes at once (net.core.wmem_default, 208 KiB).
_PACKET_BYTES = 1 << 16
_TEXT_CHARS = 8000


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a child must know before it can build its backend; it reads this from standard input. ``build`` is pickled.
    ``socket_fd`` and ``slab_fd`` are open in the child under these numbers."""

    device_id: str
    build: bytes
    parent_id: int
    log_level: int
    socket_fd: int
    slab_fd: int
    slab_bytes: int


class Job(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A batch: ``ids`` and ``rows`` are where int32 [*shape] and float32 [*rows_shape] begin, in bytes. ``table`` is
    where int32 [1 to 3, n] does: lengths, then places and skips where there are any. All of it lies in the slab, or,
    where ``own_bytes`` is not 0, in a file of that size whose descriptor comes with the message."""

    number: int
    output: Output
    n: int
    shape: tuple[int, int]
    rows_shape: tuple[int, ...]
    ids: int
    table: int
    rows: int
    placed: bool
    skipped: bool
    own_bytes: int = 0


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Finish what you have, then end."""


class Hello(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The backend is built."""

    facts: DeviceFacts


class Refused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The backend could not be built."""

    why: str


class Ended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A job has ended: its rows lie where it said, or ``error`` says why not. Times are ``SystemClock``'s, which is the
    same clock in every process of a machine."""

    number: int
    started_s: float
    finished_s: float
    error: str | None = None


class Said(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A line of the child's log."""

    logger: str
    level: int
    text: str


ToChild: TypeAlias = Job | Stop
FromChild: TypeAlias = Hello | Refused | Ended | Said

_TO_CHILD = msgspec.msgpack.Decoder(ToChild)
_FROM_CHILD = msgspec.msgpack.Decoder(FromChild)


def shortened(text: str) -> str:
    """A text of any length as one that a packet holds, and that can be encoded: halves of surrogate pairs, as in names
    of files that are not UTF-8, are written out."""
    cut = text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]} [cut]"
    return cut.encode(errors="backslashreplace").decode()


class Line:
    """One end of the socket. Sending is safe from any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: ToChild | FromChild, files: Sequence[int] = ()) -> None:
        """Raises OSError when the other side is gone."""
        packet = msgspec.msgpack.encode(message)
        if files:
            socket.send_fds(self._end, [packet], files)
        else:
            self._end.send(packet)

    def from_child(self) -> FromChild | None:
        """The next message; None when the child is gone. Blocks. Raises msgspec.DecodeError for what is none."""
        packet = self._receive()
        return _FROM_CHILD.decode(packet) if packet else None

    def to_child(self) -> tuple[ToChild | None, int]:
        """The next message and the descriptor that came with it, or -1; None when the parent is gone. Blocks."""
        packet, files, _, _ = socket.recv_fds(self._end, _PACKET_BYTES, 1)
        for fd in files:  # MSG_CMSG_CLOEXEC would do it, but recv_fds drops its flags (Python 3.11)
            os.set_inheritable(fd, False)
        return (_TO_CHILD.decode(packet) if packet else None), (files[0] if files else -1)

    def hush(self) -> None:
        """Nothing more is to be received: whoever waits for it hears of the end."""
        self._end.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        self._end.close()

    def _receive(self) -> bytes:
        try:
            return self._end.recv(_PACKET_BYTES)
        except ConnectionError:  # the child ended with packets of ours unread
            return b""


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a line."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
