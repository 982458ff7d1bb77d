from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import msgspec
import pytest

from tandem.types import Output, Packing, Tier
from tandem.workers.base import DeviceFacts
from tandem.workers.messages import Ended, FromChild, Hello, Job, Line, Refused, Said, Stop, ToChild, pair, shortened

FACTS = DeviceFacts(backend="fake", tier=Tier.BF16, dims=4, hidden=8, streams=2, packing=Packing.ROWS)
JOB = Job(7, Output.TOKENS, 3, (2, 64), (2, 64, 8), 0, 512, 1024, True, False, 1 << 40)


@pytest.fixture
def lines() -> Iterator[tuple[Line, Line]]:
    parent, child = (Line(end) for end in pair())
    yield parent, child
    parent.close()
    child.close()


@pytest.mark.parametrize("message", [JOB, msgspec.structs.replace(JOB, output=Output.POOLED, own_bytes=0), Stop()])
def test_what_goes_down_arrives(lines: tuple[Line, Line], message: ToChild) -> None:
    parent, child = lines
    parent.send(message)
    assert child.to_child() == (message, -1)


@pytest.mark.parametrize(
    "message",
    [
        Hello(FACTS),
        Refused("no device"),
        Ended(7, 1.5, 2.5),
        Ended(8, 1.5, 2.5, "the forward pass failed"),
        Said("tandem.workers", 40, shortened("\N{GRINNING FACE}" * 1_000_000)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_goes_up_arrives(lines: tuple[Line, Line], message: FromChild) -> None:
    parent, child = lines
    child.send(message)
    assert parent.from_child() == message


def test_a_file_goes_with_a_message(lines: tuple[Line, Line]) -> None:
    parent, child = lines
    with tempfile.TemporaryFile() as file:
        file.write(b"of its own")
        file.flush()
        parent.send(JOB, (file.fileno(),))
    message, fd = child.to_child()
    assert message == JOB
    assert os.pread(fd, 100, 0) == b"of its own"
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_each_side_sees_the_other_go(lines: tuple[Line, Line]) -> None:
    parent, child = lines
    child.send(Ended(7, 1.5, 2.5))
    child.close()
    assert parent.from_child() == Ended(7, 1.5, 2.5), "what was said before comes first"
    assert parent.from_child() is None
    with pytest.raises(BrokenPipeError):
        parent.send(Stop())
    parent, child = (Line(end) for end in pair())
    parent.close()
    assert child.to_child() == (None, -1)
    child.close()


def test_a_child_that_ends_with_unread_jobs_has_ended(lines: tuple[Line, Line]) -> None:
    parent, child = lines
    parent.send(JOB)
    child.close()
    assert parent.from_child() is None


@pytest.mark.parametrize(
    "packet", [b"\xff", b"nonsense", msgspec.msgpack.encode(JOB), msgspec.msgpack.encode(["Ended", 7])]
)
def test_nonsense_is_told_from_messages(packet: bytes) -> None:
    ours, theirs = pair()
    with theirs:
        theirs.send(packet)
        line = Line(ours)
        with pytest.raises(msgspec.DecodeError):
            line.from_child()
        line.close()


def test_texts_are_cut_to_what_a_packet_holds() -> None:
    assert shortened("short") == "short"
    assert shortened("x" * 10_000).endswith("xxx [cut]")


def test_texts_that_can_not_be_encoded_are_written_out(lines: tuple[Line, Line]) -> None:
    assert shortened("no file caf\udce9 here") == r"no file caf\udce9 here"
    message = Said("tandem.workers", 40, shortened("\udce9" * 10_000))
    parent, child = lines
    child.send(message)
    assert parent.from_child() == message
