"""What is promised, and what is said of it."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from tandem.errors import ConfigError


class Promise(msgspec.Struct, frozen=True):
    """Of the answers that are served, a share of at most ``max_error`` is wrong.

    ``confidence`` is how often that holds, over the draw of the labels from which the threshold was learned: with 0.95,
    one in twenty learners may have been misled by its labels. Both lie strictly between 0 and 1; raises ConfigError.
    """

    max_error: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("max_error", "confidence"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(f"{name} of a promise must lie between 0 and 1, both excluded; got {value}")

    @property
    def delta(self) -> float:
        """The probability with which labels may mislead."""
        return 1 - self.confidence


class LearnerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``window`` labels are kept, the latest; the threshold is learned anew after ``relearn_every`` of them, or after a
    twentieth more than there are, whichever is later."""

    window: int = 10_000
    relearn_every: int = 25

    def __post_init__(self) -> None:
        if not 1 <= self.relearn_every <= self.window:
            raise ConfigError(f"relearn_every must be from 1 to window ({self.window}), got {self.relearn_every}")


class GuardOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``audit_share`` of look-ups is checked once a threshold is known and ``learn_first`` labels are there; before
    that all are. ``false_alarm`` is the probability that the alarm ever rings while the promise is kept."""

    learner: LearnerOptions = LearnerOptions()
    audit_share: float = 0.05
    learn_first: int = 1000
    false_alarm: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.audit_share <= 1:
            raise ConfigError(
                f"audit_share must be over 0 and at most 1: without audits nothing watches the promise; "
                f"got {self.audit_share}"
            )
        if not 0 < self.false_alarm < 1:
            raise ConfigError(f"false_alarm must lie between 0 and 1, both excluded; got {self.false_alarm}")


E_contra = TypeVar("E_contra", contravariant=True)


class Learner(Protocol[E_contra]):
    """Learns from labels what may be served. ``E`` is what is known of an answer before the truth: a score, signals."""

    promise: Promise

    def __len__(self) -> int:
        """Labels at hand."""
        ...

    def observe(self, evidence: E_contra, right: bool) -> None:
        """A label. Raises ValueError for evidence that is not finite."""
        ...

    def serves(self, evidence: E_contra) -> bool:
        """Whether an answer with this evidence keeps the promise."""
        ...

    def threshold(self) -> float | None:
        """The least score that is served; None: serve nothing."""
        ...

    def forget(self) -> None:
        """Drop all labels, and with them the threshold."""
        ...

    def report(self) -> Report:
        """What was known when it last learned."""
        ...


class Report(msgspec.Struct, frozen=True):
    """A learner at one moment. ``served`` labels of ``labels`` in the window have a score at or above ``threshold``,
    ``wrong`` of them are wrong, and ``bound`` is the exact upper bound on the true share (1.0 where none is served).
    ``words`` says the same to a person, and why nothing is served where ``threshold`` is None."""

    labels: int
    threshold: float | None
    served: int
    wrong: int
    bound: float
    words: str
