"""What is given up when more is asked for than can be done in time.

Whatever order it is served in, a queue that can not be done before the last of it is due loses some of its texts. The
most are answered in time when the longest go (Moore 1968, "An n job, one machine sequencing algorithm for minimizing
the number of late jobs": there the longest of those before the first that is late; here the longest of all that wait,
as nearly all have the same patience, and what comes later changes the rest). They are told at once, when they can
still ask somebody else, and not when their time is up.

Given up are only requests of one text that have a deadline and are not critical. Rejected: serving by length, shortest
first, which lets long texts wait also when there is time for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tandem.errors import DeadlineExceeded
from tandem.scheduling.base import Item
from tandem.scheduling.device import Device, worth_tokens
from tandem.scheduling.window import Window
from tandem.types import Priority

# Of what the devices should do until then, how much is counted on. 0.8 gives up too much between bursts, and without
# the time of the last batch nothing less than 0.7 keeps a full queue from being served late to the last text.
_MARGIN = 0.9
# Of the time that a text was given, the most that it is asked to leave for the batch that it runs in.
_PATIENT_SHARE = 0.25
# How far from the longest one that may be given up is looked for.
_LOOK_AHEAD = 32


class Rush(msgspec.Struct, frozen=True):
    """A device while others wait: ``wait_s`` until it is free, ``batch_s`` of a batch that is worth beginning then."""

    device: Device
    wait_s: float
    batch_s: float

    def ends_s(self, item: Item, patience_s: float) -> float:
        """When the text would be done at the soonest, in seconds from now, or in a batch that is worth beginning, if
        that takes no longer than its patience."""
        alone_s = self.device.cost.seconds(item.length, item.length * item.length, 1)
        return self.wait_s + max(alone_s, min(self.batch_s, patience_s))


def rush_of(devices: Sequence[Device], tokens: int, now: float) -> list[Rush]:
    """Of each device that serves, while so many ``tokens`` wait.

    A device that always takes the text with the least time left, and a batch as large as that leaves, ends with
    batches of one text, each just in time, and does a fraction of what it can: where more is asked for than can be
    done, who has waited too long for a batch that is worth it makes way for those who have not."""
    return [
        Rush(device, device.wait_s(now), device.cost.for_tokens(min(tokens, worth_tokens(device))))
        for device in devices
        if device.serves
    ]


def is_gone(item: Item, rush: Sequence[Rush], now: float) -> bool:
    """Nobody waits for it any more, or it is too late for it; with a ``rush``, also if it would be too late wherever it
    ran. It is told then."""
    group = item.group
    if group.deadline_s is not None:
        late_s = now
        if rush and now < group.deadline_s:
            patience_s = (group.deadline_s - item.arrived_s) * _PATIENT_SHARE
            late_s += min(one.ends_s(item, patience_s) for one in rush)
        if late_s >= group.deadline_s:
            passed = now >= group.deadline_s
            what = "passed before its turn came" if passed else "would pass before it could be computed"
            group.fail(DeadlineExceeded(f"the request's deadline {what}"))
    return group.departed


def shed(window: Window, devices: Sequence[Device], now: float) -> None:
    """Give up what is too late at the head of ``window``, and its longest texts until those that have a deadline can be
    done before the last of them is due, its own batch included. Texts without one come after them. The last text is
    tried: a prediction may be wrong."""
    if not window.due_tokens:
        return
    rush = rush_of(devices, window.total_tokens, now)
    while len(window) > 1 and is_gone(head := window.turns(0, 1)[0], rush, now):
        window.remove(head)
    serving = [one.device for one in rush]
    rate = sum(device.rate for device in serving)
    last_s = min((device.cost.for_tokens(device.most_tokens) for device in serving), default=0.0)
    room = (window.last_due_s - now - last_s) * rate * _MARGIN - sum(device.running_tokens for device in serving)
    while window.due_tokens > room and len(window) > 1:
        item = next(filter(_may_go, window.longest(_LOOK_AHEAD)), None)
        if item is None:
            return
        window.remove(item)
        item.group.fail(DeadlineExceeded("overloaded: the request's deadline would pass before it could be computed"))


def _may_go(item: Item) -> bool:
    group = item.group
    return group.pending == 1 and group.deadline_s is not None and group.priority is not Priority.CRITICAL
