"""One batch for one device from one window: the policy proposes, the limits dispose."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tandem.batching.base import Plan, QueueView
from tandem.scheduling.base import Batch, Item, packing_of
from tandem.scheduling.device import Device
from tandem.scheduling.dispatch import Pick
from tandem.scheduling.window import Window
from tandem.types import Output, Packing

# Texts that a plan may choose from when a device begins somewhere down the queue.
_REACH = 512
# A device leaves a share of the queue to those that are at least so fast relative to it; it waits for no slower one.
_PARTNER = 1 / 3


def cut(device: Device, window: Window, pick: Pick, output: Output, devices: Sequence[Device], now: float) -> Batch:
    """Take the batch out of ``window``. ``devices``: all that share the work, for how much ``device`` should leave."""
    limits = device.limits
    packing = packing_of(limits.packing, output) if limits else Packing.ONE_A_ROW
    if pick.position:
        chosen = window.turns(pick.position, pick.position + _REACH)
        first = chosen[0]
        chosen.sort(key=lambda item: (item.length, item.sequence))
        lengths, anchor = [item.length for item in chosen], chosen.index(first)
    else:
        chosen, lengths, anchor = [], window.lengths, window.anchor()
    slots, free, running = _company(device, devices)
    view = QueueView(
        lengths=lengths,
        anchor=anchor,
        total_tokens=window.total_tokens,
        free_slots=max(1.0, free),
        slots=slots,
        running_tokens=running,
        most_tokens=pick.most_tokens,
        packs=packing is not Packing.ONE_A_ROW,
        flat=packing is Packing.FLAT,
    )
    plan = device.policy.plan(view, now)
    if limits is not None:
        if pick.most_tokens < limits.max_tokens:
            limits = msgspec.structs.replace(limits, max_tokens=pick.most_tokens)
        plan = limits.bound(plan, view)
    return Batch(_taken(window, chosen, plan), plan.width, output)


def _company(device: Device, devices: Sequence[Device]) -> tuple[float, float, int]:
    """Slots and free slots, in those of ``device``, and running tokens, over it and all that it shares with."""
    if len(devices) == 1:
        return float(device.slots), float(device.free_slots), device.running_tokens
    slots, free, running = 0.0, 0.0, 0
    for other in devices:
        speed = device.cost.token_s / other.cost.token_s
        if other is device or (other.serves and speed >= _PARTNER):
            slots += other.slots * speed
            free += max(0, other.free_slots) * speed
            running += other.running_tokens
    return slots, free, running


def _taken(window: Window, chosen: Sequence[Item], plan: Plan) -> Sequence[Item]:
    if not chosen:
        return window.take(plan.start, plan.stop)
    items = chosen[plan.start : plan.stop]
    for item in items:
        window.remove(item)
    return items
