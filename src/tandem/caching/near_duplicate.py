"""The near-duplicate tier: a row that was computed for one text answers another, when that is proven to be near enough.

It serves worse vectors than the model's, within a bound that the user sets, so it is off unless asked for. ``cosine``
is the bound: a served row is right when its cosine with the row that the model would have given is at least that.
``promise`` says what share of served rows may be wrong, and how sure that is. Every forward pass shows what the tier
would have served and how wrong that had been, so labels cost nothing; the threshold on the signatures' cosine is
learned from them (``tandem.verification``), and may be "serve nothing".

What it rests on: an anchor's row is always the model's own, never one that was served; guards look at the words
(``guards.py``); a seeded share of look-ups is computed all the same, whatever their score, and watched by an alarm.
Pure and synchronous: no clock, no task. Not for several threads at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.caching.base import Key
from tandem.caching.guards import Reading, Strictness, read, refusal
from tandem.caching.near_anchors import Anchor, Anchors
from tandem.caching.signatures import Signature, Signer
from tandem.errors import ConfigError
from tandem.types import TokenIds
from tandem.vectors import VectorIndex
from tandem.verification import Guard, GuardOptions, GuardReport, Promise

AnchorRows: TypeAlias = Callable[[Key], NDArray[np.float32] | None]
"""The row [d] of an anchor from the cache in front, None when that has dropped it."""


_SIGNED_AT_ONCE = 8


class NearOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``capacity`` anchors are kept. Texts of over ``longest`` tokens are left alone: of those, nothing cheap has ever
    found a pair at a high cosine, and their words are what memory would go to. ``neighbours``: how many candidates are
    looked at. ``audit`` has the share of look-ups that is computed all the same, the alarm and the seed."""

    cosine: float = 0.95
    promise: Promise = Promise(max_error=0.05)
    strictness: Strictness = Strictness.USUAL
    capacity: int = 50_000
    longest: int = 64
    neighbours: int = 4
    audit: GuardOptions = GuardOptions()

    def __post_init__(self) -> None:
        if not 0 < self.cosine < 1:
            raise ConfigError(f"the cosine of near duplicates must lie between 0 and 1, got {self.cosine}")
        for name in ("capacity", "longest", "neighbours"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of near duplicates must be at least 1, got {getattr(self, name)}")


class Query(msgspec.Struct, frozen=True, eq=False):
    """A text as it is looked up. ``text`` None: only its ``ids`` are known, and as the guards read words, it is never
    served. ``space`` holds all that rows depend on beside the text (tenant, prompt, ...): only within one do texts
    answer each other. ``signature`` [dims] is given where it is a smaller model's row."""

    text: str | None
    ids: TokenIds
    space: str = ""
    signature: Signature | None = None


class Candidate(msgspec.Struct, frozen=True):
    """The anchor ``key`` and the ``similarity`` of its signature, which is what the threshold is on."""

    key: Key
    similarity: float


class Look(msgspec.Struct, frozen=True, eq=False):
    """What a look-up found. ``serve``: answer with this anchor's row. Otherwise compute, and hand this to ``learn``;
    ``nearest`` is what would have been served at a low enough threshold."""

    serve: Candidate | None
    nearest: Candidate | None
    audit: bool
    would_serve: bool
    reading: Reading | None
    signature: Signature | None


class NearDuplicateTier:
    """One model's near duplicates."""

    def __init__(self, options: NearOptions, signer: Signer, index: VectorIndex, rows: AnchorRows) -> None:
        """``index`` has the signer's dims and is this tier's own. Raises ConfigError when it has others."""
        if index.dims != signer.dims:
            raise ConfigError(f"the index has {index.dims} dimensions, signatures have {signer.dims}")
        self.options = options
        self._signer = signer
        self._rows = rows
        self._anchors = Anchors(index, options.capacity)
        self._guard = Guard(options.promise, options.audit, "the near-duplicate tier")
        self._refused: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._anchors)

    def look_up(self, query: Query) -> Look:
        """The anchor that may answer ``query``, if there is one. Raises ValueError where a smaller model's row is the
        signature and none is given, or one of another length."""
        self._counts["lookups"] += 1
        audit = self._guard.audit()
        if query.text is None or not 0 < len(query.ids) <= self.options.longest:
            return Look(None, None, audit, False, None, None)
        reading = read(query.text)
        signature = self._sign(query)
        nearest = None if signature is None else self._nearest(query.space, reading, signature)
        would_serve = nearest is not None and self._guard.serves(nearest.similarity)
        serve = nearest if would_serve and not audit else None
        self._counts["found"] += nearest is not None
        self._counts["served"] += serve is not None
        return Look(serve, nearest, audit, would_serve, reading, signature)

    def learn(self, query: Query, look: Look, key: Key, row: NDArray[np.float32]) -> bool:
        """The model's own ``row`` [d] for a look-up that was not served. Never call it with a row that was.

        True when it shows that the promise is broken: from here on nothing is served until it is learned anew.
        """
        rings = self._label(look, row) if look.audit and look.nearest is not None else False
        if look.reading is None or not np.isfinite(row).all() or not row.any():
            return rings
        ids = np.array(query.ids, np.int32).tobytes()
        signature = look.signature
        if self._signer.observe(query.ids, row):
            signature = self._sign(query)
        if self._signer.ready:
            self._sign_waiting()
        if signature is None or signature.any():
            self._anchors.add(Anchor(key, query.space, look.reading, ids), signature)
        return rings

    def forget(self, key: Key) -> bool:
        """An anchor whose row is gone or must not be served. Whether it was there."""
        return self._anchors.remove(key)

    def clear(self) -> None:
        """Forget all anchors. What was learned of the threshold stays."""
        self._anchors.clear()

    def threshold(self) -> float | None:
        """Of the signatures' cosine; None: nothing is served."""
        return self._guard.threshold()

    def report(self) -> GuardReport:
        """What is promised, known and audited, also in words."""
        return self._guard.report()

    def state(self) -> str:
        """In words: what is served, or why nothing is."""
        if not self._signer.ready:
            return f"serves nothing: the {self._signer.name} key is still learned, {len(self._anchors)} texts seen"
        return self._guard.report().words

    def statistics(self) -> dict[str, float]:
        """Counters and gauges by name."""
        report = self._guard.report()
        gauges = {
            "anchors": len(self._anchors),
            "bytes": self._anchors.memory_bytes(),
            "labels": report.learned.labels,
            "threshold": -1.0 if report.learned.threshold is None else report.learned.threshold,
            "audited": report.audited,
            "audited_wrong": report.audited_wrong,
            "audited_error": report.audited_wrong / report.audited if report.audited else 0.0,
            "audited_error_bound": report.audited_bound,
            "alarms": report.alarms,
        }
        refused = {f"refused_{why}": count for why, count in sorted(self._refused.items())}
        return dict.fromkeys(("lookups", "found", "served", "labelled"), 0) | self._counts | refused | gauges

    def _sign(self, query: Query) -> Signature | None:
        """None while there are no signatures yet; zeros for one that is of no use."""
        signature = query.signature
        if signature is None:
            if not self._signer.ready:
                return None
            signature = self._signer.sign(query.ids)
        return signature if np.isfinite(signature).all() else np.zeros(self._signer.dims, np.float32)

    def _nearest(self, space: str, reading: Reading, signature: Signature) -> Candidate | None:
        """The nearest that no guard refuses."""
        if not signature.any():
            return None
        for anchor, cosine in self._anchors.nearest(signature, self.options.neighbours):
            if anchor.space != space:
                continue
            why = refusal(reading, anchor.reading, self.options.strictness)
            if why is None:
                return Candidate(anchor.key, cosine)
            self._refused[why] += 1
        return None

    def _label(self, look: Look, row: NDArray[np.float32]) -> bool:
        assert look.nearest is not None
        other = self._rows(look.nearest.key)
        if other is None:
            self._anchors.remove(look.nearest.key)
            return False
        self._counts["labelled"] += 1
        right = cosine_of(other, row) >= self.options.cosine
        return self._guard.observe(look.nearest.similarity, right, look.would_serve)

    def _sign_waiting(self) -> None:
        """A few of the anchors from before there were signatures: all at once would hold up whoever waits meanwhile."""
        waiting = self._anchors.waiting(_SIGNED_AT_ONCE)
        signed = [(anchor, self._signer.sign(anchor.tokens())) for anchor in waiting]
        for anchor, signature in signed:
            if not signature.any():
                self._anchors.remove(anchor.key)
        good = [(anchor, signature) for anchor, signature in signed if signature.any()]
        if good:
            self._anchors.sign([anchor for anchor, _ in good], [signature for _, signature in good])


def cosine_of(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Between two rows of any length; -1 where one has no direction, or is not finite."""
    wide, narrow = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(wide) * np.linalg.norm(narrow))
    cosine = float(wide @ narrow) / lengths if lengths else -1.0
    return cosine if np.isfinite(cosine) else -1.0
