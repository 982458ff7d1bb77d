"""Who goes when there is no room: a window for the new, a clock for the proven, counts that say who is which.

A new entry joins the window, which is an LRU list. What reaches its end meets the oldest of the main queue that has not
been used lately, and the one that was asked for less often goes. So a scan, whose entries are asked for once, passes
through the window and pushes out nothing. (Admission by frequency: Einziger, Friedman and Manes, TinyLFU, 2017. Queues
with lazy promotion in the place of LRU lists: Yang et al., S3-FIFO, 2023.)

A hit in the main queue changes two bytes and moves nothing. In the window it moves: a clock there had 1.2 points less
than an LRU on mooncake's prompts. On the traces of bench/cache_hit_ratio.py the parents alone fell behind the best
peer, S3-FIFO by up to 3.6 points and W-TinyLFU, with its usual window of 1 %, by up to 7.5: which window is right
depends on the traffic, so eviction_trial.py finds it out.

Decisions only: slots are numbers from 1, and what lies in them is the caller's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from tandem.caching.l1_index import column

# A slot is used again in the next rounds of the clock as often as it was hit, up to so many.
_ROUNDS = 7
# More than the clock's, as counts also tell the often used from the very often used. Four bits.
_COUNTED = 15
# Counts are halved after so many uses a slot, so that yesterday's favourites go. Ten is usual (Caffeine); thirty gained
# up to 1.5 points where favourites last, and where they do not, the trial chooses a window that needs no counts.
_USES_A_SLOT = 30
# What one insertion may do at most, so that none takes long: after a phase of hits alone, every slot may have rounds.
# Counts are halved for so many slots at a time, 0.1 ms; all of a large cache at once would stop the event loop.
_STEPS, _MOVES, _HALVED = 32, 8, 4096
# So many that have gone are remembered for each that is here, in buckets of so many. Marks are a word's highest bits.
_PAST, _WAYS = 8, 4
_MARK_SHIFT = 52


class Ring:
    """A queue threaded through columns that several rings share; a slot is in one of them at most."""

    __slots__ = ("_after", "_before", "count", "head")

    def __init__(self, before: memoryview, after: memoryview) -> None:
        self._before, self._after = before, after
        self.head = self.count = 0
        """The oldest slot, 0 when there is none."""

    def push(self, slot: int) -> None:
        """Add it as the youngest."""
        head = self.head
        if head:
            last = self._before[head]
            self._before[slot], self._after[slot] = last, head
            self._after[last] = self._before[head] = slot
        else:
            self._before[slot] = self._after[slot] = self.head = slot
        self.count += 1

    def turn(self) -> None:
        """Make the oldest the youngest."""
        self.head = self._after[self.head]

    def renew(self, slot: int) -> None:
        """Make ``slot`` the youngest."""
        if slot == self.head:
            self.head = self._after[slot]
        else:
            self.remove(slot)
            self.push(slot)

    def remove(self, slot: int) -> None:
        before, after = self._before[slot], self._after[slot]
        self._after[before], self._before[after] = after, before
        self.count -= 1
        if slot == self.head:
            self.head = after if self.count else 0

    def __iter__(self) -> Iterator[int]:
        slot = self.head
        for _ in range(self.count):
            yield slot
            slot = self._after[slot]


class Popularity:
    """How often keys were used that are not here any more: of the last few times as many as are here, a mark of 12 bits
    and a count, in buckets.

    Not a count-min sketch, which W-TinyLFU has: between two halvings many more keys pass than it has counters, most of
    them asked for once, so that each new key found counts of others in its places, by chance, and which ones depended
    on the hash. On the traces of bench/cache_hit_ratio.py that cost up to 0.9 points, and moved a ratio by as much from
    one hash to the next. A mark meets another key's in 4 of 4,096 cases.
    """

    SLOT_BYTES = 2 * _PAST

    def __init__(self, slots: int) -> None:
        self._buckets = slots * _PAST // _WAYS
        self._marks = np.zeros(slots * _PAST, np.uint16)
        self._mark = self._marks.data

    def of(self, low: int) -> int:
        """The count that was noted, halved since then; 0 for who was never here or is forgotten."""
        place, mark = low % self._buckets * _WAYS, low >> _MARK_SHIFT
        for held in self._mark[place : place + _WAYS].tolist():
            if held >> 4 == mark:
                return held & _COUNTED
        return 0

    def note(self, low: int, count: int) -> None:
        """Of a bucket that is full, the least used goes, of those the oldest."""
        if not count:
            return
        place, mark = low % self._buckets * _WAYS, low >> _MARK_SHIFT
        bucket = self._mark[place : place + _WAYS].tolist()
        gone = least = 0
        for index, held in enumerate(bucket):
            used = held & _COUNTED
            if used and held >> 4 == mark:
                gone, count = index, max(count, used)
                break
            if not index or used < least:
                gone, least = index, used
        del bucket[gone]
        # The youngest last.
        self._mark[place : place + _WAYS] = array("H", [*bucket, mark << 4 | count])

    def halve(self, first: int, end: int) -> None:
        """The counts in the share of these slots."""
        marks = self._marks[first * _PAST : end * _PAST]
        counts = (marks & _COUNTED) >> 1
        marks &= 0xFFFF ^ _COUNTED
        marks |= counts
        marks[counts == 0] = 0


class Evictor:
    """Window and main queue over ``slots`` slots. ``share`` of them are the window's: few for traffic whose favourites
    last; all for traffic that returns to what it used last, and then this is an LRU. ``lows``: a word of the key in
    each slot."""

    SLOT_BYTES = 8 + 3 + Popularity.SLOT_BYTES

    def __init__(self, slots: int, share: float, lows: memoryview) -> None:
        self.slots, self.hits = slots, 0
        self._lows = lows
        # One slot more: a new entry is in before another goes.
        links = column(slots + 2, np.int32), column(slots + 2, np.int32)
        self.free, self._window, self._main = Ring(*links), Ring(*links), Ring(*links)
        self._in_main, self._rounds = column(slots + 2, np.uint8), column(slots + 2, np.uint8)
        self._counts = np.zeros(slots + 2, np.uint8)
        self._count = self._counts.data
        self._elsewhere = Popularity(slots)
        self._inserts = self._aged = self._to_halve = 0
        self._is_tight = False
        self.resize(share)

    def __len__(self) -> int:
        return self._window.count + self._main.count

    def resize(self, share: float) -> None:
        """Give the window this share; it takes effect within the next insertions."""
        self._room = max(1, round(self.slots * share))

    def hit(self, slot: int) -> None:
        self.hits += 1
        rounds, count = self._rounds[slot], self._count[slot]
        if rounds < _ROUNDS:
            self._rounds[slot] = rounds + 1
        if count < _COUNTED:
            self._count[slot] = count + 1
        # It costs a microsecond, and nobody goes before half of the room is taken.
        if self._is_tight and not self._in_main[slot]:
            self._window.renew(slot)

    def insert(self, slot: int) -> int:
        """Take a slot in. Returns the one that has gone for it, 0 if none; that may be ``slot`` itself, when everything
        else is in use."""
        self._age()
        self._count[slot] = min(_COUNTED, self._elsewhere.of(self._lows[slot]) + 1)
        self._rounds[slot] = self._in_main[slot] = 0
        self._window.push(slot)
        gone = 0
        self._is_tight = 2 * len(self) > self.slots
        if len(self) > self.slots:
            gone = self._choose()
            self.remove(gone)
        # There is room, or the window's share has shrunk.
        for _ in range(_MOVES):
            if self._window.count <= self._room:
                break
            self._promote(self._window.head)
        return gone

    def remove(self, slot: int) -> None:
        """Let go of a slot, and remember how often it was used."""
        (self._main if self._in_main[slot] else self._window).remove(slot)
        self._elsewhere.note(self._lows[slot], self._count[slot])

    def idle(self, ring: Ring) -> int:
        """The oldest slot of a ring that has no rounds left, as far as a few steps find one; 0 of an empty ring."""
        for _ in range(_STEPS if ring.count else 0):
            rounds = self._rounds[ring.head]
            if not rounds:
                break
            self._rounds[ring.head] = rounds - 1
            ring.turn()
        return ring.head

    def live(self) -> set[int]:
        """The slots in either queue."""
        return {*self._window, *self._main}

    def _choose(self) -> int:
        """Who goes: from the main queue while the window is within its size, else the less used of either's oldest."""
        if self._window.count <= self._room and self._main.count:
            return self.idle(self._main)
        candidate, rival = self._window.head, self.idle(self._main)
        if rival and self._count[candidate] > self._count[rival]:
            return rival
        return candidate

    def _promote(self, slot: int) -> None:
        self._window.remove(slot)
        self._main.push(slot)
        self._in_main[slot], self._rounds[slot] = 1, 0

    def _age(self) -> None:
        self._inserts += 1
        if self.hits + self._inserts - self._aged > _USES_A_SLOT * self.slots:
            self._aged = self.hits + self._inserts
            self._to_halve = len(self._counts)
        if self._to_halve:
            end = self._to_halve
            first = self._to_halve = max(0, end - _HALVED)
            self._counts[first:end] >>= 1
            self._elsewhere.halve(first, end)
