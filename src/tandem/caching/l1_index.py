"""Keys to slots without a Python object a key: what a hit needs is found in arrays.

A dict would look a key up in 40 ns instead of 300, but holds a bytes object, an int and its own table, 160 to 220 bytes
an entry. With rows of 388 bytes (384 dimensions as int8) that is every third entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

_PLACES_A_SLOT = 2


def column(slots: int, kind: DTypeLike) -> memoryview[int]:
    """Zeros, of which the system gives the pages that are used. Through a memoryview one number is read in a third of
    the time that numpy takes."""
    return np.zeros(slots, kind).data


class KeyIndex:
    """A hash table with linear probing, half full at most. Keys are two words of 64 bits that are hashes already; slots
    count from 1, and 0 says none."""

    SLOT_BYTES = 16 + 4 * _PLACES_A_SLOT

    def __init__(self, slots: int) -> None:
        self.lows, self.highs = column(slots + 1, np.uint64), column(slots + 1, np.uint64)
        self._size = _PLACES_A_SLOT * (slots + 1)
        self._table = column(self._size, np.int32)

    def find(self, low: int, high: int) -> int:
        """The slot of a key, or 0."""
        table = self._table
        place = low % self._size
        while slot := table[place]:
            if self.lows[slot] == low and self.highs[slot] == high:
                return slot
            place += 1
            if place == self._size:
                place = 0
        return 0

    def add(self, low: int, high: int, slot: int) -> None:
        """Enter a key that is not there."""
        place = low % self._size
        while self._table[place]:
            place = (place + 1) % self._size
        self._table[place] = slot
        self.lows[slot], self.highs[slot] = low, high

    def remove(self, slot: int) -> None:
        """Take out the key in ``slot``. What follows moves up, so no gravestones pile up over a cache's life."""
        table, size = self._table, self._size
        gap = self.lows[slot] % size
        while table[gap] != slot:
            gap = (gap + 1) % size
        place = gap
        while True:
            place = (place + 1) % size
            follower = table[place]
            if not follower:
                break
            # It may fill the gap unless that lies before the place where its search begins.
            if (place - self.lows[follower]) % size >= (place - gap) % size:
                table[gap] = follower
                gap = place
        table[gap] = 0

    def check(self, live: set[int]) -> list[str]:
        """What is wrong with it, if its slots are to be ``live``."""
        held = [slot for slot in self._table.tolist() if slot]
        faults: list[str] = []
        if len(held) != len(set(held)) or set(held) != live:
            faults.append(f"the index holds {len(held)} slots, {len(live)} are live")
        faults += [f"slot {slot} is not found" for slot in held if self.find(*self._words(slot)) != slot]
        return faults

    def _words(self, slot: int) -> tuple[Any, Any]:
        return self.lows[slot], self.highs[slot]
