"""Reads that meet share a call; when answers fail to come, few wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from tandem.caching.base import Entry, Key
from tandem.caching.gather import Answer, Gather, GatherOptions
from tandem.caching.pace import Pace
from tandem.caching.rack import Found
from tandem.clock import Clock, ManualClock, SystemClock
from tandem.types import Tier


def keys(*numbers: int) -> list[Key]:
    return [bytes((number,)) * 16 for number in numbers]


def entry(key: Key) -> Entry:
    return Entry(row=np.zeros(1, np.float32), tokens=key[0], tier=Tier.FP32)


def tokens(answer: Answer) -> list[int | None]:
    return [None if found is None else found.tokens for found in answer.result()]


class Store:
    """Answers when it may, and remembers what each call asked and how it ended."""

    def __init__(self, options: GatherOptions, patience_s: float = 1e9, clock: Clock | None = None) -> None:
        self.may = asyncio.Event()
        self.calls: list[int] = []
        self.ended: list[str] = []
        self.gather = Gather(self.read, self.end, options, Pace(patience_s, patience_s), clock or SystemClock())

    async def read(self, asked: Sequence[Key]) -> Found:
        self.calls.append(len(asked))
        await self.may.wait()
        return Found([entry(key) for key in asked], [])

    def end(self, call: asyncio.Future[Found] | None, took_s: float) -> list[Entry | None]:
        self.ended.append("late" if call is None else "answered")
        return [] if call is None else call.result().entries


async def test_what_is_asked_meanwhile_goes_together() -> None:
    store = Store(GatherOptions(timeout_s=1e6, calls=2, keys=10))
    answers = [store.gather.ask(keys(number))[0] for number in range(1, 15)]
    store.may.set()
    await asyncio.wait(answers)
    assert store.calls == [1, 1, 10, 2]
    assert [tokens(answer) for answer in answers] == [[number] for number in range(1, 15)]
    await store.gather.close()


async def test_a_long_list_is_cut() -> None:
    store = Store(GatherOptions(timeout_s=1e6, calls=1, keys=4))
    parts = store.gather.ask(keys(*range(1, 11)))
    store.may.set()
    await asyncio.wait(parts)
    assert store.calls == [4, 4, 2]
    assert [token for part in parts for token in tokens(part)] == list(range(1, 11))
    assert store.gather.ask([]) == []
    await store.gather.close()


async def test_who_leaves_takes_no_answer_along() -> None:
    store = Store(GatherOptions(timeout_s=1e6, calls=1, keys=10))
    first, second, third = (store.gather.ask(keys(number))[0] for number in (1, 2, 3))
    first.cancel()
    second.cancel()
    store.may.set()
    await third
    assert tokens(third) == [3]
    assert store.calls == [1, 1], "and nobody asks for who has left"
    await store.gather.close()


async def test_when_nothing_comes_the_oldest_three_wait_and_nobody_else() -> None:
    store = Store(GatherOptions(timeout_s=1e6, calls=2, keys=4, doubters=3), patience_s=0.001)
    first = store.gather.ask(keys(1, 2, 3, 4, 5, 6))
    later = [store.gather.ask(keys(number))[0] for number in (7, 8, 9, 10)]
    await asyncio.wait(later[2:])
    assert [tokens(answer) for answer in later[2:]] == [[None], [None]]
    assert not any(answer.done() for answer in [*first, *later[:2]])
    new = store.gather.ask(keys(11))[0]
    assert tokens(new) == [None], "who comes now does not wait at all"
    assert store.gather.late == 3
    store.may.set()
    await asyncio.wait([*first, *later[:2]])
    assert [token for part in [*first, *later[:2]] for token in tokens(part)] == list(range(1, 9))
    again = store.gather.ask(keys(12))[0]
    await again
    assert tokens(again) == [12], "an answer came: no more doubts"
    await store.gather.close()


async def test_a_call_that_is_too_late_is_ended_and_makes_room() -> None:
    store = Store(GatherOptions(timeout_s=0.001, calls=1, keys=1))
    late, next_one = store.gather.ask(keys(1, 2))
    await late
    store.may.set()
    await next_one
    assert (tokens(late), store.ended[0]) == ([None], "late")
    assert store.calls == [1, 1]
    await store.gather.close()


class Stalling(ManualClock):
    """Stands still, and jumps by ten minutes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_jump = False
        self.jumped = asyncio.Event()

    def now(self) -> float:
        if self.may_jump and not self.jumped.is_set():
            self.jumped.set()
            self.advance(600.0)
        return super().now()


async def test_an_event_loop_that_stood_still_blames_no_call() -> None:
    clock = Stalling()
    store = Store(GatherOptions(timeout_s=300.0, calls=1, keys=1), patience_s=0.001, clock=clock)
    (answer,) = store.gather.ask(keys(1))
    clock.may_jump = True
    await clock.jumped.wait()
    assert not answer.done(), "what came meanwhile may lie there unread"
    store.may.set()
    await answer
    assert (tokens(answer), store.ended) == ([1], ["answered"])
    await store.gather.close()


async def test_a_bug_in_a_call_answers_its_callers_and_is_not_hidden() -> None:
    heard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: heard.append(repr(said.get("exception"))))
    store = Store(GatherOptions(timeout_s=1e6, calls=1, keys=4))

    async def broken(asked: Sequence[Key]) -> Found:
        raise ZeroDivisionError

    gather = Gather(broken, store.end, GatherOptions(timeout_s=1e6), Pace(1.0, 1.0), SystemClock())
    (answer,) = gather.ask(keys(1))
    await answer
    assert (tokens(answer), heard) == ([None], ["ZeroDivisionError()"])
    await gather.close()


async def test_closing_answers_all() -> None:
    store = Store(GatherOptions(timeout_s=1e6, calls=1, keys=2))
    parts = store.gather.ask(keys(1, 2, 3, 4, 5))
    await store.gather.close()
    assert [token for part in parts for token in tokens(part)] == [None] * 5
    await store.gather.close()


def test_patience_follows_what_is_usual() -> None:
    pace = Pace(0.005, 0.025)
    assert pace.patience_s == 0.025
    for _ in range(100):
        pace.took(0.001)
    assert pace.patience_s == 0.005
    for _ in range(100):
        pace.took(0.010)
    assert pace.patience_s == pytest.approx(0.02, abs=0.001)
