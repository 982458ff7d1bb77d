"""Who may be served what: each tenant has a guard of his own, with his own labels, threshold, audits and alarm.

One guard for all would let one tenant's texts decide what another is served. Labels cannot be forged, as the model
gives them, but whoever chooses the texts chooses which labels there are: pairs that the key finds far apart and the
model finds near, sent a thousand times, pull a shared threshold down, and others pay with wrong rows. Even without
malice a promise proven on one tenant's questions says nothing of another's.

What stays shared teaches nobody a threshold: anchors answer only within their tenant's space, and one who floods them
costs others hits; the map of the static key is fitted to the first texts of all, and a bad map finds less, while what
it finds is still labelled by each tenant's own rows.
"""

from __future__ import annotations

import msgspec

from tandem.verification import Guard, GuardOptions, GuardReport, Promise
from tandem.verification.binomial import upper_bound

# CPython's objects of a label: a float and its places in two deques.
_LABEL_BYTES = 40


class TenantGuards:
    """At most ``most`` guards: when one more tenant asks, the one who has not asked for longest loses his, and learns
    anew if he comes back. Rejected: nothing for newcomers, as tenants that are gone would keep their places for ever.
    """

    def __init__(self, promise: Promise, options: GuardOptions, most: int) -> None:
        self._promise = promise
        self._options = options
        self._most = most
        self._guards: dict[str, Guard] = {}
        self._made = 0
        self._alarms_of_gone = 0

    def __len__(self) -> int:
        return len(self._guards)

    def of(self, tenant: str) -> Guard:
        """His guard, a new one where there is none."""
        guard = self._guards.pop(tenant, None)
        if guard is None:
            guard = self._new()
        self._guards[tenant] = guard
        return guard

    def report(self, tenant: str) -> GuardReport | None:
        """Of one who has asked lately."""
        guard = self._guards.get(tenant)
        return None if guard is None else guard.report()

    def statistics(self) -> dict[str, float]:
        """Sums over all. ``threshold``: the lowest in force, -1 where nobody is served; ``serving``: tenants that are;
        ``audited_error_bound``: on the share of wrong among what is served to all (Clopper-Pearson)."""
        tallies = [guard.tally() for guard in self._guards.values()]
        thresholds = [found for guard in self._guards.values() if (found := guard.threshold()) is not None]
        audited, wrong = sum(one.audited for one in tallies), sum(one.audited_wrong for one in tallies)
        return {
            "tenants": len(tallies),
            "serving": len(thresholds),
            "labels": sum(one.labels for one in tallies),
            "threshold": min(thresholds, default=-1.0),
            "audited": audited,
            "audited_wrong": wrong,
            "audited_error": wrong / audited if audited else 0.0,
            "audited_error_bound": upper_bound(wrong, audited, self._promise.confidence),
            "alarms": self._alarms_of_gone + sum(one.alarms for one in tallies),
        }

    def state(self) -> str:
        """In words. Of several tenants only how many are served, as each may read it."""
        if not self._guards:
            return "serves nothing: nobody has asked yet"
        guards = list(self._guards.values())
        if len(guards) == 1:
            return guards[0].report().words
        serving = sum(guard.threshold() is not None for guard in guards)
        return f"serves {serving} of {len(guards)} tenants; of the others no threshold is proven"

    def memory_bytes(self) -> int:
        """Of their labels."""
        return sum(_LABEL_BYTES * guard.tally().labels for guard in self._guards.values())

    def _new(self) -> Guard:
        while len(self._guards) >= self._most:
            gone = self._guards.pop(next(iter(self._guards)))
            self._alarms_of_gone += gone.tally().alarms
        # Each his own coin: one who sees which of his texts are computed must learn nothing of another's.
        options = msgspec.structs.replace(self._options, seed=self._options.seed + self._made)
        self._made += 1
        return Guard(self._promise, options, "the near-duplicate tier")
