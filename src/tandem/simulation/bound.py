"""How many requests any schedule could answer in time, one that knows all arrivals beforehand included.

**The relaxation.** A request is in time when its batch begins after its arrival ``a`` and ends by ``a + D``. So what
a batch costs that is put down to the request is spent within that window. Device d spends at least ``w`` seconds on a
text: the terms of its cost model for the text itself, no padding, and of the fixed cost the share of a full batch
(``fleet.least_work_s``); shares of one batch add up to its fixed cost at the most. All slots of d together do at most
``S`` seconds of such work in a second. Give each device a price ``u`` a second. A text then pays at least
``p = min over d of u_d * w_d``, where d counts only if it could answer the text in time alone, and in any stretch of
time all devices together earn at most ``C = sum of u_d * S_d`` a second. So for every schedule there is a flow of
payments, from texts to time: at most C a second, each text's within its window, p for each text that is in time. The
most texts that such a flow can pay for, fractions counted, is at least what any schedule answers in time, whatever
the prices; the least over a few choices of prices is taken.

**Solving it.** The payments that windows let through form a polymatroid: its rank function f(texts) is the largest
flow from those texts alone. So the greedy rule is exact (Edmonds 1970): cheapest texts first, and with classes of
equal price the most texts are ``sum over classes of (f(up to k) - f(up to k - 1)) / p_k``. f needs no general flow:
windows have one length, so serving in order of arrival is earliest deadline first, which is a largest flow when
neighbourhoods are intervals (Glover 1967), in one pass. Prices are rounded down to ``_CLASSES`` values, which only
raises the bound.

The server itself is one more machine that each request passes: it gives a bound of its own, and takes its least time
out of the window. Batches' times are taken at their mean, so compare with a run that does not scatter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tandem.simulation.base import Lengths, Workload
from tandem.simulation.fleet import Member, least_work_s
from tandem.simulation.profile import DeviceProfile, HostProfile

_CLASSES = 96
_PRICE_QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)


def most_in_time(
    fleet: Sequence[Member], workload: Workload, objective_s: float, host: HostProfile | None = None
) -> float:
    """No schedule answers more of the workload's requests within ``objective_s`` of their arrival."""
    workload = workload.clipped(min(member.profile.max_width for member in fleet))
    server_s = host.request_s + host.answer_s + host.batch_s if host else 0.0
    window_s = objective_s - server_s
    if window_s <= 0:
        return 0.0
    work_s = [_work_in_time(member.profile, workload.lengths, window_s) for member in fleet]
    speeds = [member.profile.streams_speed for member in fleet]
    typical = np.quantile(workload.lengths, _PRICE_QUANTILES)
    bounds = []
    for length in typical:
        unit = np.array([length], np.int64)
        prices = [1.0 / float(least_work_s(member.profile, unit)[0]) for member in fleet]
        paid = np.min([price * work for price, work in zip(prices, work_s, strict=True)], axis=0)
        earned = sum(price * speed for price, speed in zip(prices, speeds, strict=True))
        bounds.append(_most_paid(workload.times_s, paid, earned, window_s))
    if host is not None:
        own = np.full(len(workload), host.request_s + host.answer_s)
        bounds.append(_most_paid(workload.times_s, own, 1.0, objective_s))
    return min(bounds)


def _work_in_time(profile: DeviceProfile, lengths: Lengths, window_s: float) -> NDArray[np.float64]:
    """Device seconds of each text; infinite for one that the device could not answer in time even alone."""
    cost = profile.cost
    alone_s = cost.fixed_s + cost.token_s * lengths + cost.square_s * lengths**2 + cost.text_s
    in_time = alone_s / max(profile.speeds) <= window_s
    return np.where(in_time, least_work_s(profile, lengths), np.inf)


def _most_paid(times_s: NDArray[np.float64], prices: NDArray[np.float64], earned: float, window_s: float) -> float:
    """The greedy rule over classes of prices."""
    possible = np.isfinite(prices)
    times_s, prices = times_s[possible], prices[possible]
    if not len(prices):
        return 0.0
    edges = np.unique(np.quantile(prices, np.linspace(0, 1, _CLASSES + 1)[:-1], method="lower"))
    classes = np.searchsorted(edges, prices, side="right") - 1
    rounded = edges[classes]
    total, before = 0.0, 0.0
    for index, price in enumerate(edges):
        chosen = classes <= index
        flow = _largest_flow(times_s[chosen].tolist(), rounded[chosen].tolist(), earned, window_s)
        total += (flow - before) / price
        before = flow
    return total


def _largest_flow(times_s: list[float], prices: list[float], earned: float, window_s: float) -> float:
    free_s = flow = 0.0
    for time_s, price in zip(times_s, prices, strict=True):
        begins_s = free_s if free_s > time_s else time_s
        room = (time_s + window_s - begins_s) * earned
        if room > 0:
            paid = price if price < room else room
            flow += paid
            free_s = begins_s + paid / earned
    return flow
