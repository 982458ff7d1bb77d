"""Batches cut by tokens and predicted memory, from a window sorted by length, with the least padding for the time.

The plan is a run of the sorted window that holds the anchor. A run ending at a longer text pads every other text in
it, one that stops short pays the fixed cost of a batch for fewer tokens: for each possible end the longest run that
fits is taken, and the one with the most real tokens a second wins, by ``t = c0 + c1 * padded tokens`` (DESIGN 5
without its smaller terms). ``c0 / c1`` is all that matters, the tokens that a batch's fixed cost is worth.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from tandem.batching.base import BatchLimits, Plan, QueueView
from tandem.batching.packing import plan_packed
from tandem.batching.shapes import floor_rows, round_width
from tandem.types import Outcome

# A batch of one token costs 1.3 ms on the CPU this was measured on, a change of shape 1.5 ms, each further token 66 us.
FIXED_COST_TOKENS = 40
# No run reaches past twice the anchor's width: it would be over half padding for the anchor.
_WIDEST = 2


class MemoryAwarePolicy:
    """The default policy."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits

    def plan(self, view: QueueView, now: float) -> Plan:
        if view.packs:
            return plan_packed(view, self._limits)
        share = view.share_tokens
        best, best_rate = None, 0.0
        for end, width in self._ends(view):
            fits = max(1, min(self._limits.capacity(width), share // width))
            stop = min(end, view.anchor + fits)
            start = max(0, stop - fits)
            rate = sum(view.lengths[start:stop]) / (FIXED_COST_TOKENS + (stop - start) * width)
            if rate > best_rate:
                best, best_rate = Plan(start, stop, width), rate
            if stop < end:
                break
        assert best is not None, "a view is never empty"
        return self._on_grid(best, view)

    def observe(self, outcome: Outcome) -> None:
        """Learns nothing: its two costs are a ratio that holds across machines well enough to cut by."""

    def _ends(self, view: QueueView) -> Iterator[tuple[int, int]]:
        """Each place where a run may end, with its width: the widths of the grid from the anchor's to twice it."""
        end, widest = view.anchor, 0
        while end < len(view.lengths):
            width = round_width(view.lengths[end], self._limits.max_width)
            widest = widest or _WIDEST * width
            if width > widest:
                return
            end = bisect_right(view.lengths, width, lo=end)
            yield end, width

    def _on_grid(self, plan: Plan, view: QueueView) -> Plan:
        """Cut the number of texts down to the grid of shapes; those cut off wait for the next batch."""
        drop = plan.n - floor_rows(plan.n)
        start = min(plan.start + drop, view.anchor)
        stop = max(plan.stop - (drop - (start - plan.start)), view.anchor + 1)
        return Plan(start, stop, round_width(view.lengths[stop - 1], self._limits.max_width))
