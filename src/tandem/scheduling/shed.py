"""What is given up when more is asked for than can be done in time.

Whatever order it is served in, a queue that can not be done before the last of it is due loses some of its texts. The
most are answered in time when the longest go (Moore 1968, "An n job, one machine sequencing algorithm for minimizing
the number of late jobs": there the longest of those before the first that is late; here the longest of all that wait,
as nearly all have the same patience, and what comes later changes the rest). They are told at once, when they can
still ask somebody else, and not when their time is up.

Given up are only requests of one text that have a deadline, are not critical, and have no other caller. Classes are
looked at by themselves: no text makes way for one of a class behind its own. Rejected: serving by length, shortest
first, which lets long texts wait also when there is time for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tandem.errors import DeadlineExceeded
from tandem.scheduling.base import Item
from tandem.scheduling.device import Device, worth_tokens
from tandem.scheduling.dues import NEARLY_ALL
from tandem.scheduling.window import Window
from tandem.types import Priority

# Of what the devices should do until then, how much is counted on.
_MARGIN = 0.9
# Of the time that a text was given, the most that it is asked to leave for the batch that it runs in.
_PATIENT_SHARE = 0.25


class _Ready(msgspec.Struct, frozen=True):
    """A device: ``wait_s`` until it is free, ``batch_s`` of a batch that is worth beginning then."""

    device: Device
    wait_s: float
    batch_s: float

    def ends_s(self, item: Item, patience_s: float) -> float:
        """When the text would be done at the soonest, in seconds from now, or in a batch that is worth beginning, if
        that takes no longer than its patience."""
        alone_s = self.device.cost.seconds(item.length, item.length * item.length, 1)
        return self.wait_s + max(alone_s, min(self.batch_s, patience_s))


class Rush:
    """Who is too late while others wait that could use the time. ``due_tokens``: those of each class that have a
    deadline; texts without one are nobody's hurry, nor are those of a class behind one's own.

    A device that always takes the text with the least time left, and a batch as large as that leaves, ends with
    batches of one text, each just in time, and does a fraction of what it can: where more is asked for than can be
    done, who has waited too long for a batch that is worth it makes way for those who have not. What is critical makes
    way for nobody, and is dropped only where it would be too late all alone."""

    def __init__(self, devices: Sequence[Device], due_tokens: Sequence[int], now: float) -> None:
        self._devices = [device for device in devices if device.serves]
        self._due_tokens = due_tokens
        self._now = now
        self._ready: dict[Priority, list[_Ready]] = {}

    def is_late(self, item: Item, due_s: float) -> bool:
        """Wherever it ran."""
        priority = item.group.priority
        ready = self._ready.get(priority)
        if ready is None:
            tokens = sum(self._due_tokens[: priority + 1])
            ready = self._ready[priority] = [self._at(device, tokens) for device in self._devices]
        patience_s = 0.0 if priority is Priority.CRITICAL else (due_s - item.arrived_s) * _PATIENT_SHARE
        return self._now + min((one.ends_s(item, patience_s) for one in ready), default=0.0) >= due_s

    def _at(self, device: Device, tokens: int) -> _Ready:
        return _Ready(device, device.wait_s(self._now), device.cost.for_tokens(min(tokens, worth_tokens(device))))


def is_gone(item: Item, rush: Rush | None, now: float) -> bool:
    """Nobody waits for it any more, or it is too late for it; in a ``rush``, also if it would be. It is told then."""
    group = item.group
    due_s = group.deadline_s
    if due_s is not None and (now >= due_s or (rush is not None and rush.is_late(item, due_s))):
        what = "passed before its turn came" if now >= due_s else "would pass before it could be computed"
        group.fail(DeadlineExceeded(f"the request's deadline {what}"))
    return group.departed


def shed(window: Window, devices: Sequence[Device], now: float) -> None:
    """Give up what is too late at the head of ``window``; then, class by class, its longest texts, until those that are
    due in the class and before it can be done by the time that nearly all of the class are due, the last batch
    included. The last text is tried: a prediction may be wrong. ``devices``: those that take from the window."""
    if not window.dues:
        return
    rush = Rush(devices, window.dues.tokens, now)
    while len(window) > 1 and is_gone(head := window.turns(0, 1)[0], rush, now):
        if head.window is not None:
            window.remove(head)
    serving = [device for device in devices if device.serves]
    rate = sum(device.rate for device in serving)
    running = sum(device.running_tokens for device in serving)
    for priority in (Priority.NORMAL, Priority.BACKGROUND):
        horizon_s = window.dues.horizon_s(priority)
        if horizon_s is not None and len(window) > 1:
            tokens = NEARLY_ALL * window.dues.upto(priority)
            last_s = min(device.cost.for_tokens(min(device.most_tokens, tokens)) for device in serving)
            room = (horizon_s - now - last_s) * rate * _MARGIN - running
            if tokens > room:
                _give_up(window, priority, (tokens - room) / NEARLY_ALL)


def _give_up(window: Window, priority: Priority, tokens: float) -> None:
    """The longest of a class, so many tokens in all."""
    victims: list[Item] = []
    for item in window.longest():
        if tokens <= 0 or len(victims) + 1 == len(window):
            break
        if item.group.priority is priority and _may_go(item):
            victims.append(item)
            tokens -= item.length
    if victims:
        window.remove_all(victims)
    for item in victims:
        item.group.fail(DeadlineExceeded("overloaded: the request's deadline would pass before it could be computed"))


def _may_go(item: Item) -> bool:
    """A request of one text that has a deadline, for which nobody else waits."""
    group = item.group
    return len(group.rows) == 1 and group.deadline_s is not None and not item.shared
