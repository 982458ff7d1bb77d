from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tandem.scheduling.base import Group, Item
from tandem.scheduling.window import Window
from tandem.types import Output, Priority


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def items(loop: asyncio.AbstractEventLoop, *lengths_and_ranks: tuple[int, float]) -> list[Item]:
    group = Group(len(lengths_and_ranks), loop.create_future(), Priority.NORMAL, Output.POOLED)
    made = []
    for index, (length, rank) in enumerate(lengths_and_ranks):
        item = Item(group, index, [7] * length, 0)
        item.rank = rank
        made.append(item)
    return made


def filled(*parts: list[Item]) -> Window:
    window = Window()
    for part in parts:
        for item in part:
            window.add(item)
    return window


def test_is_sorted_by_length_and_knows_whose_turn_it_is(loop: asyncio.AbstractEventLoop) -> None:
    window = filled(items(loop, (9, 3.0), (2, 2.0), (5, 1.0), (5, 4.0)))
    assert window.lengths == [2, 5, 5, 9]
    assert window.total_tokens == 21
    assert window.anchor() == 1
    assert window.anchor_rank() == 1.0


def test_equal_ranks_go_in_the_order_they_came(loop: asyncio.AbstractEventLoop) -> None:
    first, second = items(loop, (5, 1.0), (5, 1.0))
    window = filled([first, second])
    assert window.take(0, 1) == [first]
    assert window.anchor() == 0
    assert window.take(0, 1) == [second]


def test_what_is_taken_is_gone_from_both_orders(loop: asyncio.AbstractEventLoop) -> None:
    window = filled(items(loop, (1, 0.0), (2, 1.0), (3, 2.0)))
    taken = window.take(0, 2)
    assert [item.length for item in taken] == [1, 2]
    assert (len(window), window.lengths, window.total_tokens) == (1, [3], 3)
    assert window.anchor() == 0
    assert window.anchor_rank() == 2.0
    window.take(0, 1)
    assert (len(window), window.total_tokens) == (0, 0)


def test_a_group_that_leaves_takes_its_own_and_nobody_elses(loop: asyncio.AbstractEventLoop) -> None:
    mine, others = items(loop, (5, 0.0), (5, 1.0), (1, 2.0)), items(loop, (5, 0.5), (7, 3.0))
    window = filled(mine, others)
    taken = window.take(0, 1)
    for item in mine:
        assert (item.window is None) == (item in taken)
        if item.window is not None:
            item.window.remove(item)
    assert taken == [mine[2]]
    assert window.lengths == [5, 7]
    assert window.total_tokens == 12
    assert window.anchor() == 0
    assert window.take(0, 2) == others
    assert not window.turns(0, 1)


def test_turns_are_in_the_order_of_ranks(loop: asyncio.AbstractEventLoop) -> None:
    made = items(loop, (9, 3.0), (2, 2.0), (5, 1.0))
    window = filled(made)
    assert window.turns(0, 9) == made[::-1]
    assert window.turns(1, 2) == [made[1]]
    assert [window.length_of_turn(place) for place in range(3)] == [5, 2, 9]
