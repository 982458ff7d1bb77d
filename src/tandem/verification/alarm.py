"""An alarm that may be looked at after every answer, for ever, and still seldom rings without cause.

A bettor plays against the promise. She starts with 1 and stakes on "more than ``max_error`` is wrong": after each
checked answer her capital is multiplied by p/a if it was wrong and by (1-p)/(1-a) if it was right, where a is
``max_error`` and p > a the rate that she bets on. While the promise is kept each factor has a mean of at most 1,
whatever came before, so the probability that her capital *ever* reaches 1/d is at most d (Ville 1939; Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024). A Clopper-Pearson bound looked at again
and again would ring without cause in the end; spending its error over a schedule of looks rings later than the bet.

She does not know p, nor when the promise will break, so she splits her capital: over a few rates, and over the moments
to begin, with weight 1/(t(t+1)) for "after t answers". The capital that has not begun to play lies idle. So a service
that was right for long is not forgiven its past: a change after t answers costs only about 2 ln t more evidence.
"""

from __future__ import annotations

import math

# Rates that she bets on lie evenly, on the scale of log-odds, from just over max_error up to this.
_HIGHEST_RATE = 0.9
_RATES = 6


class Alarm:
    """Watches a stream of checked answers that were served under one promise."""

    def __init__(self, max_error: float, false_alarm: float) -> None:
        """Rings with probability <= ``false_alarm`` while each answer is wrong with probability <= ``max_error``."""
        low = _log_odds(max_error)
        step = max(_log_odds(_HIGHEST_RATE) - low, 3.0) / _RATES
        rates = [1 / (1 + math.exp(-low - step * (place + 1))) for place in range(_RATES)]
        self._if_wrong = [rate / max_error for rate in rates]
        self._if_right = [(1 - rate) / (1 - max_error) for rate in rates]
        self._needed = 1 / false_alarm
        self._playing = [0.0] * _RATES
        self._n = 0
        self.wrong = 0
        self.rang = False

    def __len__(self) -> int:
        return self._n

    @property
    def evidence(self) -> float:
        """Her capital, 1 at the start; it rings at 1 / false_alarm."""
        return sum(self._playing) / _RATES + 1 / (self._n + 1)

    def observe(self, wrong: bool) -> bool:
        """One checked answer. True from the answer on at which it rings."""
        self._n += 1
        self.wrong += wrong
        begins = 1 / (self._n * (self._n + 1))
        factors = self._if_wrong if wrong else self._if_right
        self._playing = [(capital + begins) * factor for capital, factor in zip(self._playing, factors, strict=True)]
        self.rang = self.rang or self.evidence >= self._needed
        return self.rang


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))
