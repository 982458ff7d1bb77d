"""A promise kept over time: which look-ups are checked, what may be served, and when to stop."""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

import msgspec
import numpy as np

from tandem.verification.alarm import Alarm
from tandem.verification.base import GuardOptions, Learner, Promise, Report
from tandem.verification.binomial import upper_bound
from tandem.verification.learner import ThresholdLearner

E = TypeVar("E")

log = logging.getLogger("tandem.verification")


class GuardReport(msgspec.Struct, frozen=True):
    """``learned`` is the learner's; ``audited`` served answers were checked under the thresholds since the last alarm
    and ``audited_wrong`` of them were wrong, so that with the promise's confidence at most ``audited_bound`` of all are
    (Clopper-Pearson; 1.0 where none was checked); ``evidence`` against the promise rings the alarm at 1 / false_alarm;
    ``alarms`` is how often it rang. ``words`` is for people."""

    learned: Report
    audited: int
    audited_wrong: int
    audited_bound: float
    evidence: float
    alarms: int
    words: str


class GuardTally(msgspec.Struct, frozen=True):
    """Of a report what costs nothing to say: labels at hand, answers audited since the last alarm, those of them that
    were wrong, and how often the alarm rang."""

    labels: int
    audited: int
    audited_wrong: int
    alarms: int


class Warden(Generic[E]):
    """Learner, audits and alarm of one promise.

    The order of a look-up: ``audit()`` *before* the evidence is known; ``serves(evidence)``; and if it was an audit,
    once the truth is out, ``observe(evidence, right)``. Labels of other look-ups are not wanted: whoever reports what
    he found wrong, and not what was right, is no fair sample.

    When the alarm rings, the labels that gave the threshold are of a world that is gone. They are dropped, nothing is
    served, and every look-up is an audit until fresh labels prove a threshold.
    """

    def __init__(self, learner: Learner[E], options: GuardOptions, name: str = "") -> None:
        """``name`` is for the log."""
        self.promise = learner.promise
        self._options = options
        self._name = name
        self._learner = learner
        self._alarm = self._new_alarm()
        self._chance = np.random.default_rng(options.seed)
        self._alarms = 0

    def audit(self) -> bool:
        """Whether this look-up is to be checked, by a coin that knows nothing of it. Always, while there are fewer than
        ``learn_first`` labels, or no threshold and room for more of them: a full window that proves nothing will not
        sooner if all of it is checked again."""
        labels, options = len(self._learner), self._options
        if labels < options.learn_first or (self._learner.threshold() is None and labels < options.learner.window):
            return True
        return bool(self._chance.random() < self._options.audit_share)

    def serves(self, evidence: E) -> bool:
        """Whether an answer with this evidence keeps the promise."""
        return self._learner.serves(evidence)

    def threshold(self) -> float | None:
        """The least score that is served; None: serve nothing."""
        return self._learner.threshold()

    def restore(self, evidence: E, right: bool) -> None:
        """A label from before a restart: to learn from, not for the alarm, which begins anew."""
        self._learner.observe(evidence, right)

    def observe(self, evidence: E, right: bool, served: bool | None = None) -> bool:
        """The truth about an audited look-up. ``served`` says whether it was over the threshold when it was looked up;
        None means as it is now. True when this rings the alarm. Raises ValueError for evidence that is not finite."""
        was_served = self.serves(evidence) if served is None else served
        self._learner.observe(evidence, right)
        rings = was_served and self._alarm.observe(not right)
        if rings:
            self._alarms += 1
            log.warning(
                "%s: the promise of at most %.2f%% wrong answers is broken: %d of %d audited ones were wrong; "
                "serving nothing until it is learned anew",
                self._name or "a verified cache",
                100 * self.promise.max_error,
                self._alarm.wrong,
                len(self._alarm),
            )
            self.forget()
        return rings

    def forget(self) -> None:
        """Drop all labels: nothing is served until new ones prove a threshold."""
        self._learner.forget()
        self._alarm = self._new_alarm()

    def tally(self) -> GuardTally:
        """Counts, for who asks often."""
        return GuardTally(len(self._learner), len(self._alarm), self._alarm.wrong, self._alarms)

    def report(self) -> GuardReport:
        """All of it. The exact bounds take milliseconds where there are many labels."""
        learned, alarm = self._learner.report(), self._alarm
        words = learned.words
        if self._alarms:
            words += f"; the alarm rang {self._alarms} times"
        if len(alarm):
            words += f"; {alarm.wrong} of {len(alarm)} audited answers were wrong"
        bound = upper_bound(alarm.wrong, len(alarm), self.promise.confidence)
        return GuardReport(learned, len(alarm), alarm.wrong, bound, alarm.evidence, self._alarms, words)

    def _new_alarm(self) -> Alarm:
        return Alarm(self.promise.max_error, self._options.false_alarm)


class Guard(Warden[float]):
    """A warden of plain scores, the higher the surer."""

    def __init__(self, promise: Promise, options: GuardOptions | None = None, name: str = "") -> None:
        chosen = options or GuardOptions()
        super().__init__(ThresholdLearner(promise, chosen.learner), chosen, name)
