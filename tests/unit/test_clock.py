from __future__ import annotations

import time

import pytest

from tandem.clock import Clock, ManualClock, SystemClock


def test_the_machines_clock_goes_forward_and_knows_the_year() -> None:
    clock: Clock = SystemClock()
    first = clock.now()
    assert clock.now() >= first
    assert abs(clock.wall() - time.time()) < 60


def test_a_manual_clock_stands_until_it_is_told() -> None:
    clock = ManualClock(5.0)
    assert (clock.now(), clock.now()) == (5.0, 5.0)
    clock.advance(1.5)
    assert clock.now() == clock.wall() == 6.5


def test_time_does_not_go_back() -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-0.1)
    assert clock.now() == 0.0
