from __future__ import annotations

import io

import pytest

from tandem.clock import ManualClock
from tandem.models.progress import StreamProgress, readable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_five_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), ManualClock()
    progress = StreamProgress(stream, clock)
    progress.note("asking")
    for done in range(0, 101, 10):
        progress.transfer("model", done * 1_000_000, 100_000_000)
        clock.advance(1.0)
    assert stream.getvalue().splitlines() == [
        "asking",
        "model: 50.0 MB of 100.0 MB (50%), 10.0 MB/s, 5 s left",
        "model: 100.0 MB of 100.0 MB (100%), 10.0 MB/s",
    ]


def test_a_terminal_gets_one_line_that_is_drawn_again() -> None:
    stream, clock = Terminal(), ManualClock()
    progress = StreamProgress(stream, clock)
    for done in (0, 1, 2, 4):
        progress.transfer("model", done * 1000, 4000)
        clock.advance(0.06)
    progress.note("done")
    drawn = stream.getvalue()
    assert drawn.count("\n") == 2
    assert drawn.split("\r\x1b[K")[1:] == [
        "model: 2.0 kB of 4.0 kB (50%), 16.7 kB/s",
        "model: 4.0 kB of 4.0 kB (100%), 22.2 kB/s\n",
        "done\n",
    ]


def test_an_end_is_told_once_and_a_size_need_not_be_known() -> None:
    stream, clock = io.StringIO(), ManualClock()
    progress = StreamProgress(stream, clock)
    progress.transfer("model", 5, 5)
    progress.transfer("model", 5, 5)
    progress.transfer("other", 0, None)
    clock.advance(10.0)
    progress.transfer("other", 100, None)
    assert stream.getvalue().splitlines() == ["model: 5 B of 5 B (100%)", "other: 100 B, 10 B/s"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (90_868_376, "90.9 MB"), (2.3e9, "2.3 GB")],
)
def test_sizes_are_readable(size_bytes: float, text: str) -> None:
    assert readable(size_bytes) == text
