"""A device as the scheduler sees it: what it may run, what it runs, what that costs."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

import msgspec

from tandem.batching.base import BatchLimits, BatchPolicy
from tandem.batching.packing import Empty
from tandem.scheduling.base import Batch
from tandem.scheduling.cost_model import CPU_PRIOR, Cost, CostModel
from tandem.scheduling.window import Window
from tandem.types import Outcome, Output, Packing, TokenBatch

# Of the latency objective, what one batch may take; the rest is for waiting and for everything around it.
_OBJECTIVE_SHARE = 0.8
# A batch is not cut below so many times what its fixed cost is worth, or the device does little else than begin.
_WORTH = 10.0
_UNLIMITED = 1 << 20


class DeviceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` as ``cpu`` or ``cuda:0``; ``slots``: batches computed side by side; ``limits`` bound what the policy
    proposes; ``prior``: the cost believed in until batches teach it; ``latency_objective_s``: what a request should
    take, which bounds how long one batch may, 0 for no bound."""

    id: str = "cpu"
    slots: int = 1
    limits: BatchLimits | None = None
    prior: Cost = CPU_PRIOR
    latency_objective_s: float = 0.0


# A device that has been down for so long is counted on no more, and what waits for it is told.
GIVE_UP_S = 10.0


class _Run(msgspec.Struct):
    """``started_s``: None for a batch that was handed over ahead and waits for a slot. ``batch`` is held here, as its
    identity names the run."""

    batch: Batch
    predicted_s: float
    started_s: float | None


class _Capacity(msgspec.Struct, frozen=True):
    """What follows from a cost, and is asked for more often than that changes."""

    cost: Cost
    most_tokens: int
    rate: float


class Device:
    """One device. Everything here belongs to the core; ``windows`` hold the texts that a dispatcher has bound to it."""

    def __init__(self, policy: BatchPolicy, options: DeviceOptions) -> None:
        self.id = options.id
        self.slots = options.slots
        self.limits = options.limits
        self.policy = policy
        self.cost = CostModel(options.prior)
        self.up = True
        self.down_since_s: float | None = None
        self.well = True
        """Its answers are right."""
        self.resting = False
        """It is given no batches, as it is not well and others are."""
        self.windows = {output: Window() for output in Output}
        self.running_tokens = 0
        self.objective_s = options.latency_objective_s * _OBJECTIVE_SHARE
        """Of the latency objective, what one batch may take; 0 for no bound."""
        self._runs: dict[int, _Run] = {}
        self._known = self._measure()

    @property
    def free_slots(self) -> int:
        return self.slots - len(self._runs)

    @property
    def serves(self) -> bool:
        """It is up and not resting."""
        return self.up and not self.resting

    @property
    def busy(self) -> bool:
        """It runs something."""
        return bool(self._runs)

    @property
    def alone(self) -> bool:
        """It runs a suspect, beside which nothing else may run."""
        return any(run.batch.suspect for run in self._runs.values())

    def expected(self, now: float) -> bool:
        """It serves, or has been down for so short a time that it may be back soon. One that rests is not waited for:
        what the others may not run again would wait for ever."""
        return self.serves or (not self.up and self.down_since_s is not None and now - self.down_since_s < GIVE_UP_S)

    @property
    def rate(self) -> float:
        """Tokens a second in the largest batches, all slots together."""
        return self._capacity().rate

    @property
    def most_tokens(self) -> int:
        """The largest batch that the limits and the latency objective leave."""
        return self._capacity().most_tokens

    def _capacity(self) -> _Capacity:
        if self._known.cost is not self.cost.cost:
            self._known = self._measure()
        return self._known

    def _measure(self) -> _Capacity:
        most = self.limits.max_tokens if self.limits else _UNLIMITED
        if self.objective_s:
            within = max(self.cost.tokens_in(self.objective_s), _WORTH * self.cost.worth_tokens)
            most = max(1, min(most, int(within)))
        return _Capacity(self.cost.cost, most, self.slots * most / self.cost.for_tokens(most))

    def wait_s(self, now: float) -> float:
        """Seconds until a slot is free, as predicted, batches that were handed over ahead done too; 0 when one is."""
        if self.free_slots > 0:
            return 0.0
        slots = sorted(_remaining_s(run, now) for run in self._runs.values() if run.started_s is not None)
        for run in self._runs.values():
            if run.started_s is None and slots:
                insort(slots, slots.pop(0) + run.predicted_s)
        return slots[0] if slots else 0.0

    def outstanding_s(self, now: float) -> float:
        """Seconds of work that it has taken on, running and bound to it, shared out over its slots."""
        running = sum(_remaining_s(run, now) for run in self._runs.values())
        bound_tokens = sum(window.total_tokens for window in self.windows.values())
        return (running + bound_tokens * self.cost.token_s) / self.slots

    def arrays(self, batch: Batch, pad_id: int, empty: Empty | None = None) -> TokenBatch:
        """``batch`` as the device takes it; ``empty`` gives the array for the ids, by shape."""
        if self.limits is None:
            return batch.arrays(pad_id, Packing.ONE_A_ROW, 0, empty)
        return batch.arrays(pad_id, self.limits.packing, self.limits.max_width, empty)

    def begin(self, batch: Batch, now: float) -> None:
        """It runs ``batch`` from now on."""
        squares = sum(item.length * item.length for item in batch.items)
        predicted_s = self.cost.seconds(batch.tokens, squares, len(batch.items))
        self._runs[id(batch)] = _Run(batch, predicted_s, now if self.free_slots > 0 else None)
        self.running_tokens += batch.tokens

    def end(self, batch: Batch, outcome: Outcome | None = None) -> None:
        """It no longer runs ``batch``; an outcome teaches what it cost."""
        del self._runs[id(batch)]
        self.running_tokens -= batch.tokens
        if outcome is not None:
            ahead = next((run for run in self._runs.values() if run.started_s is None), None)
            if ahead is not None:
                ahead.started_s = outcome.finished_s
            self.cost.observe(outcome)
            self.policy.observe(outcome)


def worth_tokens(device: Device) -> float:
    """A batch of so many is worth beginning: its fixed cost is a tenth of it, or there can be no larger one."""
    return min(device.most_tokens, _WORTH * device.cost.worth_tokens)


def _remaining_s(run: _Run, now: float) -> float:
    """What a batch still takes. One that is overdue is expected to take as long again as it is late, and a tenth more:
    a device that hangs is soon counted on no more."""
    if run.started_s is None:
        return run.predicted_s
    left = run.started_s + run.predicted_s - now
    return left if left > 0 else 0.1 * run.predicted_s - left


def look_again_s(devices: Sequence[Device], now: float) -> float:
    """Seconds after which a device that left the queue to others should look at it again: when the first of them
    should be done with what it runs; 0 when none runs anything."""
    waits = [device.wait_s(now) for device in devices if device.serves]
    return min((wait_s for wait_s in waits if wait_s > 0), default=0.0)
