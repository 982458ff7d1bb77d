"""How much of the cache the window gets is not set but found out, by small caches that run beside it and hold no rows.

Each has one size of window and sees the same sample of the keys; the cache takes the size of the one that hits most.
Search queries want a small window, conversations return to what was said last and want nothing but a window, and
nobody can tell beforehand which they have. (Caffeine climbs by changing the real cache and watching; it needs several
turnovers for a step, which these traces do not have. Sampled miniatures: Waldspurger et al., ATC 2017.)
"""

from __future__ import annotations

from math import sqrt

from tandem.caching.eviction import Evictor
from tandem.caching.l1_index import KeyIndex

SHARES = (0.1, 0.3, 0.7, 1.0)
# Hits count less the longer ago they were, by uses of the sample; a rival must lead by some share of what chance alone
# would do.
_KEPT = 1 - 1 / 2000
_LEAD = 0.4
_TOGETHER = 16


class Shelf:
    """Keys in slots, and who goes when all are taken."""

    SLOT_BYTES = KeyIndex.SLOT_BYTES + Evictor.SLOT_BYTES

    def __init__(self, slots: int, share: float) -> None:
        self.index = KeyIndex(slots + 1)
        self.evictor = Evictor(slots, share, self.index.lows)
        self.used = 0
        """Slots that ever held something, 1 to ``used``."""

    def put(self, low: int, high: int) -> tuple[int, int]:
        """Give a key that is not here a slot. Returns it, and the slot that has gone for it, 0 if none; when they are
        the same, the key was not let in."""
        free = self.evictor.free
        slot = free.head
        if slot:
            free.remove(slot)
        else:
            self.used += 1
            slot = self.used
        self.index.add(low, high, slot)
        gone = self.evictor.insert(slot)
        if gone:
            self.index.remove(gone)
            free.push(gone)
        return slot, gone

    def remove(self, slot: int) -> None:
        self.evictor.remove(slot)
        self.index.remove(slot)
        self.evictor.free.push(slot)

    def check(self) -> list[str]:
        """What its books disagree on."""
        live, free = self.evictor.live(), set(self.evictor.free)
        faults = self.index.check(live)
        if len(live) != len(self.evictor) or live & free or live | free != set(range(1, self.used + 1)):
            faults.append(f"of {self.used} slots, {len(live)} are live and {len(free)} free")
        return faults


class WindowTrial:
    """Tells an evictor the share of its window. One key in 1 + ``mask`` is to be shown to it, by a word of the key."""

    SLOTS = 1024
    """Enough to tell the sizes apart, and few beside any cache."""
    SLOT_BYTES = len(SHARES) * Shelf.SLOT_BYTES
    """What it costs a cache, by slot, up to ``SLOTS`` of them."""
    BYTES = SLOTS * SLOT_BYTES

    def __init__(self, evictor: Evictor) -> None:
        self._evictor = evictor
        slots = evictor.slots
        halvings = max(0, (slots - 1) // self.SLOTS).bit_length()
        self.mask = (1 << halvings) - 1
        self._shelves = [Shelf(max(1, slots >> halvings), share) for share in SHARES]
        self._scores = [0.0] * len(SHARES)
        self._best = 0
        self._shown: list[tuple[int, int]] = []
        evictor.resize(self.share)

    @property
    def share(self) -> float:
        """The share that is in force."""
        return SHARES[self._best]

    def show(self, low: int, high: int) -> None:
        """A key of the sample was asked for."""
        self._shown.append((low, high))
        if len(self._shown) == _TOGETHER:
            for shown in self._shown:
                self._run(*shown)
            self._shown.clear()
            self._judge()

    def _run(self, low: int, high: int) -> None:
        for number, shelf in enumerate(self._shelves):
            self._scores[number] *= _KEPT
            if slot := shelf.index.find(low, high):
                shelf.evictor.hit(slot)
                self._scores[number] += 1
            else:
                shelf.put(low, high)

    def _judge(self) -> None:
        scores = self._scores
        best = max(range(len(scores)), key=scores.__getitem__)
        leader, holder = scores[best], scores[self._best]
        if leader - holder > _LEAD * sqrt(leader + holder + 1):
            self._best = best
            self._evictor.resize(self.share)
