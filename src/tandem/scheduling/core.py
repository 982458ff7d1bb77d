"""The scheduler: which texts run next. Plain and synchronous: no I/O, no clock, no await; ``now`` is an argument.

Order. Each text gets a rank, the time at which its turn comes: its arrival, plus its class's handicap, plus the time
that the texts before it in its own list are predicted to take. The smallest rank is the anchor of the next batch. So a
single question overtakes the tail of a list of 2,000 but not its head, critical overtakes normal, and nothing starves,
as ranks do not grow while they wait. (Start-time fair queueing, Goyal et al. 1996, with one flow a request.)

Batch. The policy proposes a run of the window sorted by length that holds the anchor; the limits dispose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from tandem.batching.base import BatchLimits, BatchPolicy, QueueView
from tandem.errors import BackendFailed, DeadlineExceeded, TandemError
from tandem.scheduling.base import Batch, Group, Item, packing_of
from tandem.scheduling.cost_model import CostModel
from tandem.scheduling.window import Window
from tandem.types import Outcome, Output, Packing, Priority, TokenBatch

# Seconds that a class stands behind critical. Background waits long, not for ever.
HANDICAP_S = {Priority.CRITICAL: 0.0, Priority.NORMAL: 1.0, Priority.BACKGROUND: 15.0}


class Backlog(msgspec.Struct, frozen=True):
    """What waits, running batches not counted; ``predicted_s`` is when a text that came now would be done."""

    queued_texts: int
    queued_tokens: int
    predicted_s: float


class SchedulerCore:
    """The waiting texts and the rule that cuts batches from them."""

    def __init__(self, policy: BatchPolicy, slots: int = 1, limits: BatchLimits | None = None) -> None:
        """``slots``: batches that devices compute side by side. ``limits`` bound what the policy proposes."""
        self._policy = policy
        self._limits = limits
        self._slots = slots
        self._windows = {output: Window() for output in Output}
        self.cost = CostModel()
        self._running_tokens = 0
        self._again: deque[Batch] = deque()

    def add(self, items: Iterable[Item], now: float) -> None:
        """Queue one group's items, in its own order."""
        before = 0.0
        token_s = self.cost.token_s / self._slots
        for item in items:
            item.arrived_s = now
            item.rank = now + HANDICAP_S[item.group.priority] + before
            before += item.length * token_s
            self._windows[item.group.output].add(item)

    def arrays(self, batch: Batch, pad_id: int) -> TokenBatch:
        """What the device runs."""
        limits = self._limits
        return batch.arrays(pad_id, limits.packing if limits else Packing.ONE_A_ROW, limits.max_width if limits else 0)

    @property
    def full(self) -> bool:
        """Whether a batch cut now would be as large as one may be."""
        full_tokens = self._limits.max_tokens if self._limits else 0
        return max(window.total_tokens for window in self._windows.values()) >= 2 * full_tokens > 0

    def next(self, now: float, free_slots: int = 1) -> Batch | None:
        """Cut the next batch, or None when nothing waits. Texts that nobody waits for any more, or whose deadline
        has passed, are dropped here, before they cost compute."""
        while (cut := self._cut(now, free_slots)) is not None:
            items = [item for item in cut.items if not _gone(item.group, now)]
            if items:
                batch = Batch(items, cut.width, cut.output)
                self._running_tokens += batch.tokens
                return batch
        return None

    def _cut(self, now: float, free_slots: int) -> Batch | None:
        if self._again:
            return self._again.popleft()
        output = self._most_urgent()
        if output is None:
            return None
        window = self._windows[output]
        anchor = window.anchor()
        assert anchor is not None, "the most urgent window is not empty"
        view = QueueView(
            lengths=window.lengths,
            anchor=anchor,
            total_tokens=window.total_tokens,
            free_slots=max(1, free_slots),
            slots=self._slots,
            running_tokens=self._running_tokens,
            packs=self._packing(output) is not Packing.ONE_A_ROW,
        )
        plan = self._policy.plan(view, now)
        if self._limits is not None:
            plan = self._limits.bound(plan, view)
        return Batch(window.take(plan.start, plan.stop), plan.width, output)

    def finish(self, batch: Batch, outcome: Outcome) -> None:
        """A batch ended, well or not; its cost is learned."""
        self._running_tokens -= batch.tokens
        self.cost.observe(outcome)
        self._policy.observe(outcome)

    def failed(self, batch: Batch, error: BackendFailed) -> None:
        """Run a failed batch again as two, and so on down to the text that fails alone and fails its request: one bad
        text fails nobody else's."""
        if len(batch.items) == 1:
            batch.items[0].group.fail(error)
        else:
            # Before other halves: the way down to one bad text is the depth, not the size, of what shares its batch.
            self._again.extendleft(reversed(batch.halves()))

    def abandon(self, batch: Batch, error: TandemError) -> None:
        """A batch that no device will run."""
        self._running_tokens -= batch.tokens
        for item in batch.items:
            item.group.fail(error)

    def drop(self, items: Sequence[Item]) -> None:
        """Forget those of a group's items that still wait: its caller left, or one of them failed."""
        if items:
            self._windows[items[0].group.output].drop(items)

    def fail_all(self, error: TandemError) -> None:
        """Fail every group that has a waiting item, and forget the items."""
        waiting = [item for batch in self._again for item in batch.items]
        self._again.clear()
        for window in self._windows.values():
            waiting += window.take(0, len(window))
        for item in waiting:
            item.group.fail(error)

    def backlog(self) -> Backlog:
        texts = sum(map(len, self._windows.values())) + sum(len(batch.items) for batch in self._again)
        tokens = sum(window.total_tokens for window in self._windows.values())
        tokens += sum(batch.tokens for batch in self._again)
        seconds = (tokens + self._running_tokens) * self.cost.token_s / self._slots
        return Backlog(texts, tokens, seconds)

    def _packing(self, output: Output) -> Packing:
        return packing_of(self._limits.packing, output) if self._limits else Packing.ONE_A_ROW

    def _most_urgent(self) -> Output | None:
        waiting = [output for output, window in self._windows.items() if window.anchor() is not None]
        return min(waiting, key=lambda output: self._windows[output].anchor_rank(), default=None)


def _gone(group: Group, now: float) -> bool:
    if group.deadline_s is not None and now >= group.deadline_s:
        group.fail(DeadlineExceeded("the request's deadline passed before its turn came"))
    return group.departed
