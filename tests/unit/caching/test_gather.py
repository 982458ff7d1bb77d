"""Reads that meet share a call; when answers fail to come, few wait for them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tandem.caching.base import Entry, Key
from tandem.caching.gather import Answer, Gather, GatherOptions
from tandem.caching.pace import Pace
from tandem.clock import SystemClock
from tandem.types import Tier


def keys(*numbers: int) -> list[Key]:
    return [bytes((number,)) * 16 for number in numbers]


def entry(key: Key) -> Entry:
    return Entry(row=np.zeros(1, np.float32), tokens=key[0], tier=Tier.FP32)


def tokens(answer: Answer) -> list[int | None]:
    return [None if found is None else found.tokens for found in answer.result()]


class Store:
    """Answers when it may, and remembers what each call asked."""

    def __init__(self, options: GatherOptions, patience_s: float = 1e9) -> None:
        self.may = asyncio.Event()
        self.calls: list[int] = []
        self.gather = Gather(self.read, options, Pace(patience_s, patience_s), SystemClock())

    async def read(self, asked: list[Key]) -> list[Entry | None]:
        self.calls.append(len(asked))
        await self.may.wait()
        return [entry(key) for key in asked]


async def test_what_is_asked_meanwhile_goes_together() -> None:
    store = Store(GatherOptions(calls=2, keys=10))
    answers = [store.gather.ask(keys(number))[0] for number in range(1, 15)]
    store.may.set()
    await asyncio.wait(answers)
    assert store.calls == [1, 1, 10, 2]
    assert [tokens(answer) for answer in answers] == [[number] for number in range(1, 15)]
    await store.gather.close()


async def test_a_long_list_is_cut() -> None:
    store = Store(GatherOptions(calls=1, keys=4))
    parts = store.gather.ask(keys(*range(1, 11)))
    store.may.set()
    await asyncio.wait(parts)
    assert store.calls == [4, 4, 2]
    assert [token for part in parts for token in tokens(part)] == list(range(1, 11))
    assert store.gather.ask([]) == []
    await store.gather.close()


async def test_who_leaves_takes_no_answer_along() -> None:
    store = Store(GatherOptions(calls=1, keys=10))
    first, second, third = (store.gather.ask(keys(number))[0] for number in (1, 2, 3))
    first.cancel()
    second.cancel()
    store.may.set()
    await third
    assert tokens(third) == [3]
    assert store.calls == [1, 1], "and nobody asks for who has left"
    await store.gather.close()


async def test_when_nothing_comes_the_oldest_three_wait_and_nobody_else() -> None:
    store = Store(GatherOptions(calls=2, keys=4, doubters=3), patience_s=0.001)
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


async def test_closing_answers_all() -> None:
    store = Store(GatherOptions(calls=1, keys=2))
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
