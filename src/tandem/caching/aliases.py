"""Keys that lead to another key: where a row lies, however it was asked for.

A row is kept once, under the key of the text that was computed. Its token key, and the keys of texts that turned out to
have the same tokens, stand here. What a key leads to may have been evicted: then it is a miss, and no wrong answer.
"""

from __future__ import annotations

from collections import OrderedDict

from tandem.caching.base import Key

# Two keys of 16 bytes as Python objects and their place in a dict, measured.
ALIAS_BYTES = 250


class Aliases:
    """At most ``most`` keys; the oldest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Not a dict: the oldest of one that shrinks at its front is found by looking through all that were removed.
        self._targets: OrderedDict[Key, Key] = OrderedDict()

    def __len__(self) -> int:
        return len(self._targets)

    def get(self, key: Key) -> Key | None:
        """What ``key`` leads to."""
        return self._targets.get(key)

    def put(self, key: Key, target: Key) -> None:
        """From now on ``key`` leads to ``target``."""
        if key == target or not self._most:
            return
        targets = self._targets
        targets.pop(key, None)
        if len(targets) >= self._most:
            targets.popitem(last=False)
        targets[key] = target

    def clear(self) -> None:
        self._targets.clear()
