"""The contract of a batch policy: which of the waiting texts run together next.

A policy sees lengths only. The core (``scheduling/core.py``) owns the texts, their order and their deadlines, and a
policy can not break what the core promises: the plan must hold the anchor, the text whose turn it is, so nothing
starves; and it is cut to the memory budget, so nothing a policy learns can run a device out of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tandem.types import Outcome


class QueueView(msgspec.Struct, frozen=True):
    """What waits: ``lengths`` in tokens, ascending; ``anchor``, the place in it of the text whose turn it is;
    ``total_tokens``, their sum; ``free_slots``, batches that devices could start at once, at least 1.
    """

    lengths: Sequence[int]
    anchor: int
    total_tokens: int
    free_slots: int = 1


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
    """What a batch may be: ``max_tokens`` padded tokens, ``max_bytes`` of predicted activations at
    ``bytes_per_token`` and ``bytes_per_square`` (attention scores, for each length squared). A single text over either
    limit still runs, alone. ``max_width`` is the model's longest text: rounding up never passes it.
    """

    max_tokens: int
    max_width: int
    max_bytes: int = 1 << 62
    bytes_per_token: float = 0.0
    bytes_per_square: float = 0.0

    def capacity(self, width: int) -> int:
        """How many texts of ``width`` tokens fit, at least 1."""
        by_tokens = self.max_tokens // width
        each_bytes = width * (self.bytes_per_token + width * self.bytes_per_square)
        if each_bytes * by_tokens > self.max_bytes:
            by_tokens = int(self.max_bytes // each_bytes)
        return max(1, by_tokens)

    def bound(self, plan: Plan, view: QueueView) -> Plan:
        """``plan``, mended where it leaves out the anchor or passes a limit. One that keeps its word is unchanged."""
        start = max(0, min(plan.start, view.anchor))
        stop = min(len(view.lengths), max(plan.stop, view.anchor + 1))
        width = max(min(plan.width, self.max_width), view.lengths[stop - 1])
        fits = self.capacity(width)
        stop = min(stop, max(view.anchor + 1, start + fits))
        width = max(min(plan.width, self.max_width), view.lengths[stop - 1])
        return Plan(max(start, stop - fits), stop, width)
