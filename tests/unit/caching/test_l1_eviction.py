"""Who goes when there is no room: on drawn traffic, against the plain rules that people know."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import pytest

from tandem.caching.eviction import Evictor, Popularity, Ring
from tandem.caching.eviction_trial import SHARES, Shelf, WindowTrial
from tandem.caching.l1_index import KeyIndex, column

WORDS = np.random.default_rng(3).integers(0, 2**64, (20_000, 2), np.uint64).tolist()


class Run:
    """A shelf with its trial, fed with numbers of keys."""

    def __init__(self, slots: int) -> None:
        self.shelf = Shelf(slots, 1.0)
        self.trial = WindowTrial(self.shelf.evictor)

    def ask(self, number: int) -> bool:
        low, high = WORDS[number]
        if not high & self.trial.mask:
            self.trial.show(low, high)
        if slot := self.shelf.index.find(low, high):
            self.shelf.evictor.hit(slot)
            return True
        self.shelf.put(low, high)
        return False


def lru_hits(slots: int, numbers: Iterable[int]) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for number in numbers:
        hits += number in held
        held[number] = None
        held.move_to_end(number)
        if len(held) > slots:
            held.popitem(last=False)
    return hits


def zipf(unique: int, count: int, s: float) -> list[int]:
    rng = np.random.default_rng(11)
    weights = 1 / np.arange(1, unique + 1) ** s
    drawn: list[int] = rng.choice(unique, count, p=weights / weights.sum()).tolist()
    return drawn


def returns(count: int, distance: int) -> list[int]:
    """Each key is asked for twice, the second time after ``distance`` others: nothing but recency tells which."""
    return [
        number for start in range(0, count, distance) for _ in range(2) for number in range(start, start + distance)
    ]


@pytest.mark.parametrize("slots", [50, 200, 1500])
def test_favourites_are_kept_better_than_by_lru(slots: int) -> None:
    asked = zipf(10_000, 60_000, 0.9)
    run = Run(slots)
    hits = sum(map(run.ask, asked))
    run.shelf.check()
    assert hits > lru_hits(slots, asked) + 0.03 * len(asked)
    assert run.trial.share == min(SHARES)


@pytest.mark.parametrize("slots", [100, 1000])
def test_where_only_recency_tells_the_window_grows(slots: int) -> None:
    asked = returns(18_000, slots * 8 // 10)
    run = Run(slots)
    hits = sum(map(run.ask, asked))
    assert run.trial.share == max(SHARES)
    assert hits > 0.7 * lru_hits(slots, asked)


def test_the_window_follows_the_traffic() -> None:
    run = Run(100)
    for number in returns(12_000, 80):
        run.ask(number)
    assert run.trial.share == 1.0
    for number in zipf(10_000, 40_000, 0.9):
        run.ask(number)
    assert run.trial.share < 1.0
    assert run.shelf.check() == []


def test_old_favourites_go_in_the_end() -> None:
    run = Run(100)
    for _ in range(10):
        for number in range(50):
            run.ask(number)
    rng = np.random.default_rng(5)
    for number in (1000 + rng.integers(0, 150, 60_000)).tolist():
        run.ask(number)
    kept = sum(run.shelf.index.find(*WORDS[number]) > 0 for number in range(50))
    assert kept < 10


def test_one_insertion_costs_a_bounded_number_of_steps() -> None:
    """After hits alone every slot has rounds left; still the next insertion finds one to go."""
    shelf = Shelf(1000, 0.1)
    slots = [shelf.put(*WORDS[number])[0] for number in range(1000)]
    for slot in slots * 8:
        shelf.evictor.hit(slot)
    _, gone = shelf.put(*WORDS[1000])
    assert gone > 0
    assert len(shelf.evictor) == 1000


def test_a_trial_of_a_large_cache_sees_a_sample() -> None:
    masks = {slots: WindowTrial(Shelf(slots, 1.0).evictor).mask for slots in (1, 1024, 1025, 2048, 2049, 200_000)}
    assert masks == {1: 0, 1024: 0, 1025: 1, 2048: 1, 2049: 3, 200_000: 255}


def test_counts_are_remembered_and_halved() -> None:
    popularity = Popularity(500)
    rng = np.random.default_rng(2)
    counts = {low: int(rng.integers(0, 16)) for low, _ in WORDS[:500]}
    for low, count in counts.items():
        popularity.note(low, count)
        popularity.note(low, 1)
    known = {low: popularity.of(low) for low in counts}
    assert sum(known[low] == max(count, 1) for low, count in counts.items()) > 495
    for first in (250, 0):
        popularity.halve(first, first + 250)
    assert [popularity.of(low) for low in counts] == [count // 2 for count in known.values()]


def test_a_large_cache_halves_its_counts_a_slice_an_insertion() -> None:
    """Each count once, and none in an insertion that would take long."""
    slots = 15_000
    shelf = Shelf(slots, 0.1)
    held = [shelf.put(*WORDS[number])[0] for number in range(slots)]
    for slot in held * 15:
        shelf.evictor.hit(slot)
    shelf.evictor.hits += 15 * slots
    counts = shelf.evictor._counts
    before = counts.copy()
    halved = [0]
    for _ in range(6):
        shelf.evictor._age()
        halved.append(int((counts != before).sum()))
    assert max(np.diff(halved)) <= 4096
    assert halved[-1] == slots
    np.testing.assert_array_equal(counts, before >> 1)


def test_however_many_keys_pass_a_new_one_has_no_count_of_theirs() -> None:
    popularity = Popularity(500)
    for low, _ in WORDS[:15_000]:
        popularity.note(low, 1)
    assert sum(popularity.of(low) > 0 for low, _ in WORDS[15_000:]) < 25


def test_what_was_used_often_is_remembered_longest_and_of_the_others_the_latest() -> None:
    popularity = Popularity(500)
    for low, _ in WORDS[:500]:
        popularity.note(low, 3)
    for low, _ in WORDS[500:10_000]:
        popularity.note(low, 1)
    assert sum(popularity.of(low) == 3 for low, _ in WORDS[:500]) > 480
    latest = sum(popularity.of(low) == 1 for low, _ in WORDS[8_000:10_000])
    assert latest > 1_400 > 10 * sum(popularity.of(low) == 1 for low, _ in WORDS[500:2_500])


def test_rings_share_columns() -> None:
    links = column(10, np.int32), column(10, np.int32)
    one, other = Ring(*links), Ring(*links)
    for slot in (1, 2, 3):
        one.push(slot)
    other.push(4)
    one.turn()
    assert (list(one), list(other)) == ([2, 3, 1], [4])
    one.remove(3)
    one.remove(2)
    other.push(2)
    assert (list(one), list(other)) == ([1], [4, 2])
    one.remove(1)
    assert (list(one), one.head, one.count) == ([], 0, 0)


def test_an_index_with_collisions_finds_what_it_holds() -> None:
    """Words that begin their search at the same few places, so that every removal moves others up."""
    rng = np.random.default_rng(4)
    index = KeyIndex(40)
    size = 2 * 41
    held: dict[tuple[int, int], int] = {}
    free = list(range(1, 41))
    for step in range(4000):
        if held and (not free or rng.random() < 0.5):
            key = list(held)[int(rng.integers(len(held)))]
            index.remove(held[key])
            free.append(held.pop(key))
        else:
            key = int(rng.integers(5)) * size + int(rng.integers(3)) + size - 2, step
            held[key] = free.pop()
            index.add(*key, held[key])
        assert all(index.find(*key) == slot for key, slot in held.items())
    assert index.check(set(held.values())) == []
    assert index.check({1}) != []


def test_evictor_on_its_own() -> None:
    lows = column(12, np.uint64)
    evictor = Evictor(3, 0.1, lows)
    assert [evictor.insert(slot) for slot in (1, 2, 3)] == [0, 0, 0]
    assert evictor.insert(4) > 0
    assert len(evictor) == 3
    evictor.remove(next(iter(evictor.live())))
    assert len(evictor) == 2
