"""The promises of one namespace, the audits that wait for feedback, and what feedback said."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from tandem.errors import InvalidInput
from tandem.semantic.base import PromiseReport, SemanticOptions
from tandem.semantic.signals import COUNT
from tandem.verification import FeatureLearner, Features, Promise, Warden


class Pending(msgspec.Struct, frozen=True):
    """An audited look-up: the truth about it will be a label of ``promise``."""

    promise: Promise
    evidence: Features
    served: bool


class Label(msgspec.Struct, frozen=True):
    """What an audit found. ``rang`` when it rang the alarm, so that all labels before it are void."""

    promise: Promise
    evidence: Features
    right: bool
    rang: bool


class Verdicts:
    """Guards by promise, made when a look-up first asks for one."""

    def __init__(self, name: str, options: SemanticOptions, epoch: str) -> None:
        """``epoch`` tells the ids of this process's look-ups from those of the one before a restart."""
        self._name = name
        self._epoch = epoch
        self._options = options
        self._guards: dict[Promise, Warden[Features]] = {}
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self._asked = 0
        self.right = 0
        self.wrong = 0

    def __len__(self) -> int:
        return len(self._guards)

    def guard(self, promise: Promise) -> Warden[Features]:
        """Raises InvalidInput when the namespace has as many promises as it may."""
        found = self._guards.get(promise)
        if found is None:
            if len(self._guards) >= self._options.max_promises:
                known = ", ".join(f"{p.max_error:g} at {p.confidence:g}" for p in self._guards)
                raise InvalidInput(
                    f"{self._name} has {len(self._guards)} promises already ({known}); use one of them: "
                    "each must learn from feedback of its own",
                    param="max_error",
                )
            learner = FeatureLearner(promise, self._options.guard.learner)
            found = Warden(learner, self._options.guard, f"semantic cache, {self._name}")
            self._guards[promise] = found
        return found

    def ask(self, promise: Promise, evidence: Features, served: bool) -> str:
        """A look-up that is audited; returns the id by which its feedback comes."""
        self._asked += 1
        lookup_id = f"audit-{self._epoch}-{self._asked}"
        self._pending[lookup_id] = Pending(promise, evidence, served)
        if len(self._pending) > self._options.max_pending:
            self._pending.popitem(last=False)
        return lookup_id

    def answer(self, lookup_id: str, right: bool) -> Label | None:
        """The feedback on an audit; None when no audit of this id waits: answered, given up, or never asked."""
        pending = self._pending.pop(lookup_id, None)
        if pending is None:
            return None
        rang = self.guard(pending.promise).observe(pending.evidence, right, pending.served)
        return Label(pending.promise, pending.evidence, right, rang)

    def volunteer(self, right: bool) -> None:
        """Feedback that nobody asked for. It is counted and teaches nothing: complaints are no fair sample."""
        if right:
            self.right += 1
        else:
            self.wrong += 1

    def restore(self, label: Label) -> None:
        """A label from before a restart. Beyond the limit of promises it is left out, and so is one of another version,
        which had other signals."""
        if len(label.evidence) != COUNT:
            return
        if label.promise in self._guards or len(self._guards) < self._options.max_promises:
            guard = self.guard(label.promise)
            guard.restore(label.evidence, label.right)
            if label.rang:
                guard.forget()

    def report(self) -> list[PromiseReport]:
        return [PromiseReport(promise, guard.report()) for promise, guard in self._guards.items()]
