"""How long an answer usually takes: the retransmission timer of TCP (RFC 6298), put to another use."""

from __future__ import annotations

_GAIN, _SPREAD_GAIN = 1 / 8, 1 / 4
_SPREADS = 4


class Pace:
    """Smoothed time and mean deviation of answers; ``patience_s`` is how long one waits before one doubts.

    A fixed patience would be too long beside a store on this machine, and too short for one in another building.
    """

    def __init__(self, least_s: float, most_s: float) -> None:
        """Patience stays between these, and is ``most_s`` before the first answer."""
        self._least_s = least_s
        self._most_s = most_s
        self._usual_s: float | None = None
        self._spread_s = 0.0

    def took(self, seconds: float) -> None:
        """An answer came."""
        if self._usual_s is None:
            self._usual_s, self._spread_s = seconds, seconds / 2
            return
        self._spread_s += _SPREAD_GAIN * (abs(seconds - self._usual_s) - self._spread_s)
        self._usual_s += _GAIN * (seconds - self._usual_s)

    @property
    def patience_s(self) -> float:
        # Twice, as who asks may have to wait for a read that is under way before its own.
        if self._usual_s is None:
            return self._most_s
        return min(self._most_s, max(self._least_s, 2 * self._usual_s + _SPREADS * self._spread_s))
