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
from tandem.errors import BackendFailed, TandemError
from tandem.scheduling.base import Batch, Item
from tandem.scheduling.cut import cut
from tandem.scheduling.device import Device, DeviceOptions
from tandem.scheduling.dispatch import Dispatcher, Pick
from tandem.scheduling.earliest_finish import EarliestFinish
from tandem.scheduling.queue import Queue
from tandem.scheduling.retries import Retries
from tandem.scheduling.shed import Rush, is_gone, shed
from tandem.scheduling.window import Window
from tandem.types import Outcome, Priority

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
        self._now = 0.0

    def add(self, items: Iterable[Item], now: float) -> None:
        """Queue one group's items, in its own order."""
        self._now = now
        before = 0.0
        token_s = 1.0 / _rate(self.devices)
        for item in items:
            group = item.group
            item.arrived_s = now
            item.rank = _rank(now, group.deadline_s, group.priority) + before
            before += item.length * token_s
            self._queue.place(item, now)

    def hasten(self, item: Item, priority: Priority, due_s: float | None, now: float) -> None:
        """A second request waits for ``item`` too: if it waits for its turn, that comes as soon as the more urgent of
        the two would have it."""
        item.shared = True
        rank = _rank(now, due_s, priority)
        if item.window is not None and rank < item.rank:
            item.window.remove(item)
            item.rank = rank
            self._queue.place(item, now)

    def batches(self, now: float) -> Iterator[tuple[Device, Batch]]:
        """Cut all that devices have room for, the fastest first: what it leaves, it leaves to the others."""
        self._now = now
        serving = [device for device in self.devices if device.serves]
        order = sorted(serving, key=_token_s) if len(serving) > 1 else serving
        for device in order:
            while (
                _has_room(device, self.devices, self._queue, self._retries, now)
                and (batch := self.next(device, now)) is not None
            ):
                yield device, batch
        if len(order) > 1 and self.waits and not any(device.busy for device in order):
            # Each left it to another. The rules should not let it happen, and texts must not hang on that.
            for device in order:
                if (batch := self.next(device, now, must=True)) is not None:
                    yield device, batch
                    return

    def next(self, device: Device, now: float, *, must: bool = False) -> Batch | None:
        """Cut the next batch for ``device``, which runs it from now on; None when nothing waits that it should take, or
        that it may take, where it ``must``. Texts that nobody waits for any more, or whose deadline has passed, are
        dropped here, before they cost compute; so are those that would come too late wherever they ran alone, if others
        wait that could use the time. With nobody waiting they are tried: a prediction may be wrong."""
        while (found := self._cut(device, now, must)) is not None:
            rush = None
            if self.waits and any(item.group.deadline_s is not None for item in found.items):
                rush = Rush(self.devices, self._queue.due_tokens(), now)
            items = [item for item in found.items if not is_gone(item, rush, now)]
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
        self._retries.failed(batch, device, self.devices, error, self._now)

    def lost(self, device: Device, batch: Batch, error: BackendFailed) -> None:
        """``device`` went down with ``batch``: it is run again."""
        device.end(batch)
        self._retries.lost(batch, error)

    def refused(self, device: Device, batch: Batch) -> None:
        """``batch`` was never run: its texts wait on, in their old places."""
        device.end(batch)
        for item in batch.items:
            if not item.group.departed:
                self._queue.place(item, self._now)

    def judge(self, device: Device, now: float, *, up: bool | None = None, well: bool | None = None) -> None:
        """A device went down or came back, or its answers are wrong or right again. One that is unwell rests while any
        other serves. What was bound to one that serves no more is placed anew."""
        self._now = now
        if up is not None:
            device.down_since_s = None if up else (now if device.up else device.down_since_s)
            device.up = up
        if well is not None:
            device.well = well
        for one in self.devices:
            one.resting = not one.well and any(other.up and other.well for other in self.devices)
            if not one.serves:
                self._queue.place_anew(one, now)

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

    def backlog(self) -> Backlog:
        texts = self._queue.texts() + sum(len(batch.items) for batch in self._retries)
        tokens = self._queue.tokens() + sum(batch.tokens for batch in self._retries)
        running = sum(device.running_tokens for device in self.devices)
        return Backlog(texts, tokens, (tokens + running) / _rate(self.devices))

    def _cut(self, device: Device, now: float, must: bool) -> Batch | None:
        if self._retries and (again := self._retries.take(device, self.devices, now)) is not None:
            return again
        for window, output in self._queue.open_to(device):
            shed(window, [device] if window is device.windows[output] else self.devices, now)
            if not window.lengths:
                continue
            if must or window is device.windows[output]:
                pick: Pick | None = Pick(0, device.most_tokens)
            else:
                pick = self._dispatcher.pick(device, window, self.devices, now)
            if pick is not None:
                pick = _in_time(pick, device, window, now)
                return cut(device, window, pick, output, self.devices, now)
        return None


def _rank(now: float, due_s: float | None, priority: Priority) -> float:
    patience_s = now + PATIENCE_S
    return (patience_s if due_s is None else min(due_s, patience_s)) + PATIENCE_S * priority


def _has_room(device: Device, devices: Sequence[Device], queue: Queue, retries: Retries, now: float) -> bool:
    """A slot is free, or enough waits for a batch ahead that is as large as one may be; a suspect has the device
    to itself."""
    if device.alone or (retries and device.busy and retries.want_alone(device, devices, now)):
        return False
    free = device.free_slots
    if free or device.limits is None:
        return free > 0
    return queue.fills(device, 2 * device.most_tokens)


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
    return sum(device.rate for device in devices if device.serves) or sum(device.rate for device in devices)


def _in_time(pick: Pick, device: Device, window: Window, now: float) -> Pick:
    """``pick`` with a batch that ends before the deadline of the text that it is cut around, if that is possible."""
    first = window.turns(pick.position, pick.position + 1)[0]
    if first.group.deadline_s is None:
        return pick
    room = int(device.cost.tokens_in(first.group.deadline_s - now - device.wait_s(now)))
    return Pick(pick.position, max(first.length, min(pick.most_tokens, room)))


def _token_s(device: Device) -> float:
    return device.cost.token_s
