"""A call ends by its deadline, and one that came in time is never blamed for an event loop that stood still."""

from __future__ import annotations

import asyncio

import pytest

from tandem.caching.calls import Calls, arrived
from tandem.clock import ManualClock, SystemClock


async def test_a_call_that_takes_too_long_is_ended() -> None:
    calls, ended = Calls(SystemClock()), asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await calls.within(0.001, forever())
    await calls.close(60.0)
    assert ended.is_set()


async def test_what_a_call_returns_or_raises_is_passed_on() -> None:
    async def returns() -> int:
        return 7

    async def fails() -> int:
        raise OSError("gone")

    calls = Calls(SystemClock())
    assert await calls.within(60.0, returns()) == 7
    with pytest.raises(OSError, match="gone"):
        await calls.within(60.0, fails())
    await calls.close(60.0)


class Stalling(ManualClock):
    """Between two readings the event loop stood still for a minute, and an answer came."""

    def __init__(self, answer: asyncio.Future[int]) -> None:
        super().__init__()
        self._readings = [lambda: None, lambda: answer.set_result(1)]

    def now(self) -> float:
        self._readings.pop(0)()
        self.advance(60.0)
        return super().now()


async def test_an_event_loop_that_stood_still_blames_nobody() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert not await arrived([answer], 0.0, ManualClock())
    assert await arrived([answer], 0.001, Stalling(answer))
    assert await arrived([answer], 0.0, ManualClock()), "it is done"
