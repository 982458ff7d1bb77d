"""Late binding by earliest predicted finish: a device takes a text only if no other would be done with it sooner.

All texts wait in one queue. When a device has room, it asks: run now, its batch would end after ``own`` seconds. The
faster devices, as one, would have finished the text with x tokens before it after ``theirs(x)`` seconds: when the
first of them is free, plus its batch, plus what does not fit into that at their common rate. The device leaves alone
every text for which ``theirs`` is less than ``own`` with a margin, and takes from where it is not: the CPU beside a GPU
serves what the GPU would come to later than the CPU is done with it, and makes nothing that the GPU serves later than
it would have been without a CPU. Its batch is as large as still ends by then.

The margin is hysteresis, times what nine of ten of the device's batches stay under relative to their prediction:
whoever is slower must be certain to be of use. A device that would add less than a hundredth to what the faster ones do
takes, while they are busy, only what they would finish later than the latency objective: a text taken away spoils the
company of those that stay by more than such a device gives. To a slower device that is idle, a faster one leaves only a
queue so short that the slower takes all of it: one short question, which a CPU answers before a GPU has begun.
"""

from __future__ import annotations

from collections.abc import Sequence

from tandem.batching.base import MIN_SHARE_TOKENS
from tandem.scheduling.device import Device
from tandem.scheduling.dispatch import Pick
from tandem.scheduling.window import Window

# How much sooner than the others a device must be.
_MARGIN = 1.1
# Devices within this ratio are equals, and no equal waits for another.
_EQUAL = 0.9
# A device with less than this share of what the faster ones do is faint beside them.
_FAINT = 0.01
# How far past its turn a device looks for a text that is short enough for it.
_LOOK_AHEAD = 32


class EarliestFinish:
    """The default dispatcher."""

    def assign(self, length: int, devices: Sequence[Device], now: float) -> Device | None:
        """Never: what is decided later is decided knowing more."""
        return None

    def pick(self, device: Device, window: Window, devices: Sequence[Device], now: float) -> Pick | None:
        most = device.most_tokens
        if len(devices) == 1:
            return Pick(0, most)
        faster, slower = _peers(device, devices)
        if faster:
            return _beside(device, window, faster, now)
        if window.total_tokens <= MIN_SHARE_TOKENS and _better_left(device, window.total_tokens, slower, now):
            return None
        return Pick(0, most)


def _peers(device: Device, devices: Sequence[Device]) -> tuple[list[Device], list[Device]]:
    faster, slower = [], []
    own = device.cost.token_s
    for other in devices:
        if other is device or not other.serves:
            continue
        if other.cost.token_s < own * _EQUAL:
            faster.append(other)
        elif own < other.cost.token_s * _EQUAL:
            slower.append(other)
    return faster, slower


def _better_left(device: Device, tokens: int, slower: Sequence[Device], now: float) -> bool:
    own_s = device.wait_s(now) + device.cost.for_tokens(tokens)
    return any(
        other.free_slots > 0 and other.cost.for_tokens(tokens) * other.cost.overrun * _MARGIN < own_s
        for other in slower
    )


def _beside(device: Device, window: Window, faster: Sequence[Device], now: float) -> Pick | None:
    """What a device takes beside faster ones."""
    lead = min(faster, key=lambda other: other.cost.token_s)
    first = min(window.total_tokens, lead.most_tokens)
    first_s = min(other.wait_s(now) + other.cost.for_tokens(first) for other in faster)
    rate = sum(other.rate for other in faster)
    cleared_s = first_s + (window.total_tokens - first) / rate
    certain = _MARGIN * device.cost.overrun
    own_wait_s = device.wait_s(now)
    room = device.cost.tokens_in(cleared_s / certain - own_wait_s)
    share = window.total_tokens * device.rate / (device.rate + rate)
    most = int(min(device.most_tokens, room, max(MIN_SHARE_TOKENS, share)))
    own_s = (own_wait_s + device.cost.for_tokens(min(most, window.total_tokens))) * certain
    if device.objective_s and device.rate < _FAINT * rate and not any(other.free_slots > 0 for other in faster):
        if cleared_s <= device.objective_s:
            return None
        own_s = max(own_s, device.objective_s)
    # The place in the queue from which on the faster ones come later than this.
    ahead = 0.0 if own_s <= first_s else first + (own_s - first_s) * rate
    position = min(len(window) - 1, int(len(window) * ahead / window.total_tokens))
    return _short_enough(window, position, most, int(min(device.most_tokens, room)))


def _short_enough(window: Window, position: int, most: int, room: int) -> Pick | None:
    """The first text from ``position`` on that fits into ``room``, be it longer than the ``most`` of a fair share."""
    if room < window.lengths[0]:
        return None
    for place in range(position, min(len(window), position + _LOOK_AHEAD)):
        if (length := window.length_of_turn(place)) <= room:
            return Pick(place, max(most, length))
    return None
