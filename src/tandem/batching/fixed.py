"""The policy to compare with: the first so many texts in order of arrival, whatever their lengths.

What most servers do. Its plan must be a run of the sorted window, so it takes the texts nearest in rank to the anchor
from the short end on; the size is in texts and knows no tokens beyond the hard limit.
"""

from __future__ import annotations

from tandem.batching.base import BatchLimits, Plan, QueueView
from tandem.batching.shapes import round_width
from tandem.types import Outcome


class FixedPolicy:
    """``size`` texts a batch, cut to the limits."""

    def __init__(self, limits: BatchLimits, size: int = 32) -> None:
        self._limits = limits
        self._size = size

    def plan(self, view: QueueView, now: float) -> Plan:
        start = max(0, min(view.anchor, len(view.lengths) - self._size))
        stop = min(len(view.lengths), start + self._size)
        while stop > view.anchor + 1:
            width = round_width(view.lengths[stop - 1], self._limits.max_width)
            if stop - start <= self._limits.capacity(width):
                break
            stop -= 1
        width = round_width(view.lengths[stop - 1], self._limits.max_width)
        return Plan(max(start, stop - self._limits.capacity(width)), stop, width)

    def observe(self, outcome: Outcome) -> None:
        """Learns nothing."""
