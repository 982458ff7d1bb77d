"""A circuit breaker: after a failure nobody tries any more, but for a probe now and then.

Closed, calls go through. The first failure opens it: for a cache the price of a needless opening is a few misses, the
price of a late one is a deadline for each request, so nothing is counted up first. Open, a probe is due after a pause
that doubles with each failure; its success closes the breaker. A breaker that opens soon after it closed takes the
pause up where it was, so that a store which comes and goes is tried, and written about in the log, ever more seldom.

States and their names: M. Nygard, *Release It!*, 2007.
"""

from __future__ import annotations

import logging

import msgspec

log = logging.getLogger("tandem.caching")


class BreakerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The first probe comes after ``first_s``; each failure doubles the pause, to ``most_s`` at most. Closed for
    ``good_s``, it begins anew. A probe costs no request anything, so the longest pause is short."""

    first_s: float = 0.25
    most_s: float = 4.0
    good_s: float = 30.0


class Breaker:
    """``subject`` begins each line of the log, as in "the Redis cache". ``now``: monotonic seconds."""

    def __init__(self, subject: str, options: BreakerOptions | None = None) -> None:
        self._subject = subject
        self._options = options or BreakerOptions()
        self.opened = 0
        """How often it has opened."""
        self.closed = True
        self.why = ""
        """The last failure."""
        self._pause_s = 0.0
        self._due_s = 0.0
        self._since_s = float("-inf")
        self._probing = False

    def probe(self, now: float) -> bool:
        """True when a probe is due; the caller then makes one, and tells how it ended."""
        if self.closed or self._probing or now < self._due_s:
            return False
        self._probing = True
        return True

    def failed(self, why: str, now: float) -> None:
        """A call failed, or the probe did."""
        if not self.closed and not self._probing:
            # It began before the breaker opened, and says nothing new.
            return
        self.why = why
        fresh = self.closed and now - self._since_s >= self._options.good_s
        self._pause_s = self._options.first_s if fresh else min(2 * self._pause_s, self._options.most_s)
        self._due_s = now + self._pause_s
        self._probing = False
        if self.closed:
            self.closed, self._since_s = False, now
            self.opened += 1
            log.warning("%s is given up for now, as it %s; next try in %.2g s", self._subject, why, self._pause_s)

    def succeeded(self, now: float) -> None:
        """A call succeeded. Only the probe's success closes the breaker: an answer to a call that was made before it
        opened may be an old one."""
        if self.closed or not self._probing:
            return
        log.info("%s is back after %.3g s", self._subject, now - self._since_s)
        self.closed, self._since_s, self._probing = True, now, False

    @property
    def is_half_open(self) -> bool:
        """It is open, and a probe is under way."""
        return not self.closed and self._probing

    def give_up(self) -> None:
        """The probe was not made after all."""
        self._probing = False

    def state(self, now: float) -> str:
        """``ok``, or what is wrong and for how long."""
        return "ok" if self.closed else f"{self.why} (given up {now - self._since_s:.3g} s ago)"
