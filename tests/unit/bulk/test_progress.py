from __future__ import annotations

import io

import pytest

from tandem.bulk.progress import Bar, Lines, Quiet, duration
from tandem.clock import ManualClock


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7512, "2 h 5 min"), (3599.9, "1 h 0 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_log_gets_a_line_about_every_ten_seconds() -> None:
    out, clock = io.StringIO(), ManualClock()
    lines = Lines(out, clock)
    lines.phase("embedding", 10_000, 2_000)
    for _ in range(30):
        clock.advance(1)
        lines.advance(100)
    shown = out.getvalue().splitlines()
    assert shown == [
        "embedding: 3,000 of 10,000 texts, 100 texts/s, 1 min 10 s left",
        "embedding: 4,000 of 10,000 texts, 100 texts/s, 1 min 0 s left",
        "embedding: 5,000 of 10,000 texts, 100 texts/s, 50 s left",
    ]


def test_without_a_total_there_is_no_time_left() -> None:
    out, clock = io.StringIO(), ManualClock()
    lines = Lines(out, clock)
    lines.phase("checking", None)
    clock.advance(20)
    lines.advance(1_000)
    assert out.getvalue() == "checking: 1,000 texts, 50 texts/s\n"


def test_quiet_says_only_what_must_be_said() -> None:
    out = io.StringIO()
    quiet = Quiet(out)
    quiet.phase("embedding", 10)
    quiet.advance(10)
    quiet.note("news")
    quiet.warn("stopped")
    quiet.close()
    assert out.getvalue() == "stopped\n"


def test_a_bar_shows_rate_and_count() -> None:
    out = io.StringIO()
    bar = Bar(out)
    bar.phase("checking", None)
    bar.advance(5)
    bar.phase("embedding", 10)
    bar.advance(10)
    bar.warn("note this")
    bar.close()
    shown = out.getvalue()
    assert "embedding: 100%" in shown
    assert "10/10" in shown
    assert "texts/s" in shown
    assert "note this\n" in shown
