"""A reply in one piece, whatever pieces it is written in."""

from __future__ import annotations

import asyncio

from tandem.server.one_write import OneWriteTransport


class Wire(asyncio.Transport):
    """Remembers what reached it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"<closed>")

    def abort(self) -> None:
        self.sent.append(b"<aborted>")


async def test_what_is_written_in_one_turn_leaves_at_once() -> None:
    wire = Wire()
    transport = OneWriteTransport(wire, asyncio.get_running_loop())
    transport.write(b"head ")
    transport.write(b"body")
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [b"head body"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert wire.sent == [b"head body", b"next"]


async def test_closing_sends_what_is_left_and_aborting_does_not() -> None:
    closed, aborted = Wire(), Wire()
    for wire in (closed, aborted):
        transport = OneWriteTransport(wire, asyncio.get_running_loop())
        transport.write(b"last words")
        transport.close() if wire is closed else transport.abort()
    await asyncio.sleep(0)
    assert closed.sent == [b"last words", b"<closed>"]
    assert aborted.sent == [b"<aborted>"]
