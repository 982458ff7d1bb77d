"""The contract of a batch policy: which of the waiting texts run together next.

A policy sees lengths only. The core (``scheduling/core.py``) owns the texts, their order and their deadlines, and a
policy can not break what the core promises: the plan must hold the anchor, the text whose turn it is, so nothing
starves; and it is cut to the memory budget, so nothing a policy learns can run a device out of memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from tandem.types import Outcome, Packing

# Under this many tokens a batch is not split for a second device: what it saves is less than the second fixed cost.
MIN_SHARE_TOKENS = 96


class QueueView(msgspec.Struct, frozen=True):
    """What waits: ``lengths`` in tokens, ascending; ``anchor``, the place in it of the text whose turn it is;
    ``total_tokens``, their sum; ``running_tokens``, those in batches under way; ``slots``, batches computed side by
    side, and ``free_slots``, how many of them are free, at least 1. Of several devices, both count in slots as fast as
    the one that asks. ``most_tokens``: the batch should not be larger, whatever it might share. ``packs``: a row takes
    several texts, and tokens count without padding; else each text has a row, and padding counts. ``flat``: all texts
    lie in one row, so that whatever goes together pads nothing, and no shape is better than another.
    """

    lengths: Sequence[int]
    anchor: int
    total_tokens: int
    free_slots: float = 1
    slots: float = 1
    running_tokens: int = 0
    most_tokens: int = 1 << 62
    packs: bool = False
    flat: bool = False

    @property
    def share_tokens(self) -> int:
        """What a batch should take at the most, for others to find theirs. Slots that stand idle share what waits:
        two halves side by side end sooner than one whole. Where callers come back with the next text when one is
        answered, all there is settles into equal parts: one in each slot and one that waits, so that a slot that
        ends finds a batch worth its fixed cost. Taking all that waits instead, batches alternate between huge and
        tiny (14 texts against 21 with 64 callers on two slots)."""
        if self.running_tokens:
            share = math.ceil((self.total_tokens + self.running_tokens) / (self.slots + 1))
        else:
            share = math.ceil(self.total_tokens / self.free_slots)
        return min(max(MIN_SHARE_TOKENS, share), self.most_tokens)


class Plan(msgspec.Struct, frozen=True):
    """Run ``lengths[start:stop]`` as one batch padded to ``width`` tokens; ``start <= anchor < stop``."""

    start: int
    stop: int
    width: int

    @property
    def n(self) -> int:
        return self.stop - self.start


class BatchPolicy(Protocol):
    """Cuts batches; may learn from what they cost."""

    def plan(self, view: QueueView, now: float) -> Plan:
        """The next batch. ``view`` is never empty; ``now`` in seconds."""
        ...

    def observe(self, outcome: Outcome) -> None:
        """What a batch cost."""
        ...


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch may be: ``max_tokens`` tokens, ``max_bytes`` of predicted activations at ``fixed_bytes`` a batch,
    ``bytes_per_token`` and ``bytes_per_square`` (attention scores: for each token, times the row's width). A single
    text over either limit still runs, alone. ``max_width`` is the model's longest text: rounding up never passes it.
    ``packing``: how the device wants its texts.
    """

    max_tokens: int
    max_width: int
    max_bytes: int = 1 << 62
    fixed_bytes: float = 0.0
    bytes_per_token: float = 0.0
    bytes_per_square: float = 0.0
    packing: Packing = Packing.ONE_A_ROW

    def room(self, width: int) -> int:
        """How many tokens fit into rows of ``width``."""
        each_bytes = self.bytes_per_token + width * self.bytes_per_square
        if not each_bytes:
            return self.max_tokens
        return int(min(self.max_tokens, max(0.0, self.max_bytes - self.fixed_bytes) / each_bytes))

    def capacity(self, width: int) -> int:
        """How many texts padded to ``width`` tokens fit, at least 1."""
        return max(1, self.room(width) // width)

    def bound(self, plan: Plan, view: QueueView) -> Plan:
        """``plan``, mended where it leaves out the anchor or passes a limit. One that keeps its word is unchanged."""
        start = max(0, min(plan.start, view.anchor))
        stop = min(len(view.lengths), max(plan.stop, view.anchor + 1))
        while stop - start > 1 and not self._fits(view.lengths[start:stop], plan.width, view.packs):
            start, stop = (start, stop - 1) if stop - 1 > view.anchor else (start + 1, stop)
        return Plan(start, stop, max(min(plan.width, self.max_width), view.lengths[stop - 1]))

    def _fits(self, lengths: Sequence[int], width: int, packs: bool) -> bool:
        width = max(min(width, self.max_width), lengths[-1])
        return (sum(lengths) if packs else len(lengths) * width) <= self.room(width)
