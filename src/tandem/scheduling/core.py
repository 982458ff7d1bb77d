"""The scheduler: which texts run next, and where. Plain and synchronous: no I/O, no clock, no await; ``now`` is an
argument.

Order. Each text gets a rank, and the smallest rank is the anchor of the next batch: the time by which its request
should be done (its deadline, or ``PATIENCE_S`` after its arrival where that is sooner), plus ``PATIENCE_S`` for each
class that stands before its own, plus the time that the texts before it in its own list are predicted to take. So the
earliest deadline goes first within a class, critical goes before normal, and nothing starves: ranks do not grow while
they wait, and a background text stands before whatever arrives ``2 * PATIENCE_S`` later. A single question overtakes
the tail of a list of 2,000 but not its head. (Earliest deadline first: Liu and Layland 1973; the lists' texts:
start-time fair queueing, Goyal et al. 1996, with one flow a request.)

Device. Texts wait in one queue for all, or where the dispatcher binds them early, in a queue of a device; it also says
whether a device that has room should take from the shared queue, and where in it.

Batch. The policy of the device proposes a run of the window sorted by length that holds the anchor; the limits dispose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tandem.batching.base import BatchPolicy
from tandem.errors import BackendFailed, DeadlineExceeded, TandemError
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.cut import cut
from tandem.scheduling.device import Device, DeviceOptions
from tandem.scheduling.dispatch import Dispatcher, Pick
from tandem.scheduling.earliest_finish import EarliestFinish
from tandem.scheduling.queue import Queue
from tandem.scheduling.retries import Retries
from tandem.types import Outcome

# A request without a deadline counts as due after so many seconds, and a class stands so many behind the one before.
PATIENCE_S = 30.0


class Backlog(msgspec.Struct, frozen=True):
    """What waits, running batches not counted; ``predicted_s`` is when a text that came now would be done."""

    queued_texts: int
    queued_tokens: int
    predicted_s: float


class SchedulerCore:
    """The waiting texts and the rules that cut batches from them."""

    def __init__(self, devices: Sequence[Device], dispatcher: Dispatcher | None = None) -> None:
        self.devices = tuple(devices)
        self._dispatcher = dispatcher or EarliestFinish()
        self._queue = Queue(self.devices, self._dispatcher)
        self._retries = Retries()

    def add(self, items: Iterable[Item], now: float) -> None:
        """Queue one group's items, in its own order."""
        before = 0.0
        token_s = 1.0 / _rate(self.devices)
        for item in items:
            group = item.group
            due_s = now + PATIENCE_S if group.deadline_s is None else min(group.deadline_s, now + PATIENCE_S)
            item.arrived_s = now
            item.rank = due_s + PATIENCE_S * group.priority + before
            before += item.length * token_s
            self._queue.place(item, now)

    def batches(self, now: float) -> Iterator[tuple[Device, Batch]]:
        """Cut all that devices have room for, the fastest first: what it leaves, it leaves to the others."""
        order = sorted(self.devices, key=_token_s) if len(self.devices) > 1 else self.devices
        for device in order:
            while device.up and self._has_room(device) and (batch := self.next(device, now)) is not None:
                yield device, batch
        if len(order) > 1 and self.waits and not any(device.running_tokens for device in order):
            # Each left it to another. The rules should not let it happen, and texts must not hang on that.
            for device in order:
                if device.up and (batch := self.next(device, now, must=True)) is not None:
                    yield device, batch
                    return

    def next(self, device: Device, now: float, *, must: bool = False) -> Batch | None:
        """Cut the next batch for ``device``, which runs it from now on; None when nothing waits that it should take, or
        that it may take, where it ``must``. Texts that nobody waits for any more, or whose deadline has passed, are
        dropped here, before they cost compute; so are those predicted to come too late, if others wait that could use
        the time. With nobody waiting they are tried: a prediction may be wrong."""
        while (found := self._cut(device, now, must)) is not None:
            by_s = device.ends_s(found, now) if self.waits else now
            items = [item for item in found.items if not _gone(item.group, by_s)]
            if items:
                batch = found if len(items) == len(found.items) else msgspec.structs.replace(found, items=items)
                device.begin(batch, now)
                return batch
        return None

    def finish(self, device: Device, batch: Batch, outcome: Outcome) -> None:
        """A batch ended, well or not; its cost is learned."""
        device.end(batch, outcome)

    def failed(self, device: Device, batch: Batch, error: BackendFailed) -> None:
        """``batch`` ended with an error: it is run again in halves, and a single text elsewhere, if there is one."""
        self._retries.failed(batch, device, self.devices, error)

    def lost(self, device: Device, batch: Batch, error: BackendFailed) -> None:
        """``device`` went down with ``batch``: it is run again."""
        device.end(batch)
        self._retries.lost(batch, error)

    def set_up(self, device: Device, up: bool, now: float) -> None:
        """A device went down or came back. What was bound to one that went down is placed anew."""
        device.up = up
        if not up:
            self._queue.place_anew(device, now)

    def abandon(self, device: Device, batch: Batch, error: TandemError) -> None:
        """A batch that no device will run."""
        device.end(batch)
        for item in batch.items:
            item.group.fail(error)

    def fail_all(self, error: TandemError) -> None:
        """Fail every group that has a waiting item, and forget the items."""
        for item in self._retries.clear() + self._queue.clear():
            item.group.fail(error)

    @property
    def waits(self) -> bool:
        """Whether any text waits."""
        return bool(self._retries) or bool(self._queue)

    def look_again_s(self, now: float) -> float:
        """Seconds after which a device that left the queue to others should look at it again: when the first of them
        should be done with what it runs."""
        waits = [device.wait_s(now) for device in self.devices if device.up]
        return min((wait_s for wait_s in waits if wait_s > 0), default=0.0)

    def backlog(self) -> Backlog:
        texts = self._queue.texts() + sum(len(batch.items) for batch in self._retries)
        tokens = self._queue.tokens() + sum(batch.tokens for batch in self._retries)
        running = sum(device.running_tokens for device in self.devices)
        return Backlog(texts, tokens, (tokens + running) / _rate(self.devices))

    def _has_room(self, device: Device) -> bool:
        """A slot is free, or enough waits for a batch ahead that is as large as one may be."""
        free = device.free_slots
        if free or device.limits is None:
            return free > 0
        return self._queue.fills(device, 2 * device.most_tokens)

    def _cut(self, device: Device, now: float, must: bool) -> Batch | None:
        if self._retries and (again := self._retries.take(device, self.devices)) is not None:
            return again
        for window, output in self._queue.open_to(device):
            if must or window is device.windows[output]:
                pick: Pick | None = Pick(0, device.most_tokens)
            else:
                pick = self._dispatcher.pick(device, window, self.devices, now)
            if pick is not None:
                return cut(device, window, pick, output, self.devices, now)
        return None


def drop(items: Iterable[Item]) -> None:
    """Forget those of a group's items that still wait: its caller left, or one of them failed."""
    for item in items:
        if item.window is not None:
            item.window.remove(item)


def single(policy: BatchPolicy, options: DeviceOptions | None = None) -> SchedulerCore:
    """A core over one device."""
    return SchedulerCore([Device(policy, options or DeviceOptions())])


def _rate(devices: Sequence[Device]) -> float:
    """Tokens a second of those that are up, or of all when none is: they are coming back."""
    return sum(device.rate for device in devices if device.up) or sum(device.rate for device in devices)


def _token_s(device: Device) -> float:
    return device.cost.token_s


def _gone(group: Group, now: float) -> bool:
    if group.deadline_s is not None and now >= group.deadline_s:
        group.fail(DeadlineExceeded("the request's deadline passed before its turn came"))
    return group.departed
