"""The near-duplicate tier: a row that was computed for one text answers another, when that is proven to be near enough.

It serves worse vectors than the model's, within a bound that the user sets, so it is off unless asked for. ``cosine``
is the bound: a served row is right when its cosine with the row that the model would have given is at least that.
``promise`` says what share of served rows may be wrong, and how sure that is. Every forward pass shows what the tier
would have served and how wrong that had been, so labels cost nothing; the threshold on the signatures' cosine is
learned from them (``tandem.verification``), for each tenant by himself, and may be "serve nothing".

What it rests on: an anchor's row is always the model's own, never one that was served; guards look at the words
(``guards.py``); a seeded share of look-ups is computed all the same, whatever their score, and watched by an alarm.
Labels are those of look-ups that asked for near-duplicates, as those are what the promise is about; anchors are kept of
whatever is computed.

A restart forgets anchors, labels and thresholds, on purpose. An anchor is of no use without its row, and those lie in
memory. A threshold is on the cosines of one key, and the static key's map is fitted anew to other texts, so the old
number would mean something else; and it was proven on yesterday's questions. Learning it again takes some 1,000 labels,
which are a by-product of the forward passes that a cold cache has to do anyway.

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
from tandem.caching.guards import Judge, Reading, Strictness, read
from tandem.caching.near_anchors import Anchor, Anchors
from tandem.caching.near_sketches import SignatureIndex, SketchIndex
from tandem.caching.near_tenants import TenantGuards
from tandem.caching.signatures import Signature, Signer
from tandem.errors import ConfigError
from tandem.types import TokenIds
from tandem.verification import GuardOptions, GuardReport, Promise

AnchorRows: TypeAlias = Callable[[Key], NDArray[np.float32] | None]
"""The row [d] of an anchor from the cache in front, None when that has dropped it."""


_SIGNED_AT_ONCE = 8


class NearOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``capacity`` anchors are kept. Texts of over ``longest`` tokens are left alone: of those, nothing cheap has ever
    found a pair at a high cosine, and their words are what memory would go to. ``neighbours``: how many candidates are
    looked at. ``audit`` has the share of look-ups that is computed all the same, the alarm and the seed. ``tenants``
    have a guard, those who asked last."""

    cosine: float = 0.95
    promise: Promise = Promise(max_error=0.05)
    strictness: Strictness = Strictness.USUAL
    capacity: int = 50_000
    longest: int = 64
    neighbours: int = 4
    audit: GuardOptions = GuardOptions()
    tenants: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.cosine < 1:
            raise ConfigError(f"the cosine of near duplicates must lie between 0 and 1, got {self.cosine}")
        for name in ("capacity", "longest", "neighbours", "tenants"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of near duplicates must be at least 1, got {getattr(self, name)}")


class Query(msgspec.Struct, frozen=True, eq=False):
    """A text as it is looked up. ``text`` None: only its ``ids`` are known, and as the guards read words, it is never
    served. ``space`` holds all that rows depend on beside the text (tenant, prompt, ...): only within one do texts
    answer each other. ``tenant`` is whose labels and threshold count. ``signature`` [dims] is given where it is a
    smaller model's row."""

    text: str | None
    ids: TokenIds
    space: str = ""
    tenant: str = ""
    signature: Signature | None = None


class Candidate(msgspec.Struct, frozen=True):
    """The anchor ``key`` and the ``similarity`` of its signature, which is what the threshold is on."""

    key: Key
    similarity: float


class Look(msgspec.Struct, frozen=True, eq=False):
    """What a look-up found. ``serve``: answer with this anchor's row. Otherwise compute, and hand this to ``learn``;
    ``nearest`` is what would have been served at a low enough threshold; looked for where it can be served or is to be
    audited. ``signature`` and ``reading`` are there where they were needed."""

    serve: Candidate | None
    nearest: Candidate | None
    audit: bool
    would_serve: bool
    reading: Reading | None
    signature: Signature | None


_AUDIT = Look(None, None, True, False, None, None)
NOT_LOOKED = Look(None, None, False, False, None, None)
"""Of a text that is computed for who did not ask for near-duplicates: it may become an anchor."""


class NearDuplicateTier:
    """One model's near duplicates."""

    def __init__(
        self, options: NearOptions, signer: Signer, rows: AnchorRows, index: SignatureIndex | None = None
    ) -> None:
        """``index`` is this tier's own, for signatures of the signer's dims. Raises ConfigError when it has others."""
        index = index or SketchIndex(signer.dims, options.capacity, signer.least)
        if index.dims != signer.dims:
            raise ConfigError(f"the index has {index.dims} dimensions, signatures have {signer.dims}")
        self.options = options
        self._signer = signer
        self._rows = rows
        self._anchors = Anchors(index, options.capacity)
        self._guards = TenantGuards(options.promise, options.audit, options.tenants)
        self._useless = np.zeros(signer.dims, np.float32)
        self._refused: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._anchors)

    def look_up(self, query: Query) -> Look:
        """The anchor that may answer ``query``, if there is one. Raises ValueError where a smaller model's row is the
        signature and none is given, or one of another length."""
        self._counts["lookups"] += 1
        guard = self._guards.of(query.tenant)
        audit, threshold = guard.audit(), guard.threshold()
        if (threshold is None and not audit) or query.text is None or not 0 < len(query.ids) <= self.options.longest:
            return _AUDIT if audit else NOT_LOOKED
        signature = self._sign(query)
        if signature is None or signature is self._useless:
            return Look(None, None, audit, False, None, signature)
        # An audit shows what any threshold would have done; else what is under this one needs no guards.
        least = self._signer.least if threshold is None or audit else threshold
        near = self._anchors.nearest(signature, self.options.neighbours, query.space)
        near = [one for one in near if one[1] >= least]
        if not near:
            return Look(None, None, audit, False, None, signature)
        reading = read(query.text)
        nearest = self._unrefused(reading, near)
        would_serve = nearest is not None and threshold is not None and nearest.similarity >= threshold
        serve = nearest if would_serve and not audit else None
        self._counts["found"] += nearest is not None
        self._counts["served"] += serve is not None
        return Look(serve, nearest, audit, would_serve, reading, signature)

    def learn(self, query: Query, look: Look, key: Key, row: NDArray[np.float32]) -> bool:
        """The model's own ``row`` [d] for a look-up that was not served. Never call it with a row that was.

        True when it shows that the promise is broken: from here on nothing is served until it is learned anew.
        """
        rings = self._label(query.tenant, look, row) if look.audit and look.nearest is not None else False
        if query.text is None or not 0 < len(query.ids) <= self.options.longest:
            return rings
        if not np.isfinite(row).all() or not row.any():
            return rings
        signature = look.signature
        if self._signer.observe(query.ids, row) or signature is None:
            signature = self._sign(query)
        if self._signer.ready:
            self._sign_waiting()
        if signature is not self._useless:
            reading = look.reading or read(query.text)
            self._anchors.add(Anchor(key, query.space, reading), signature, query.ids)
        return rings

    def forget(self, key: Key) -> bool:
        """An anchor whose row is gone or must not be served. Whether it was there."""
        return self._anchors.remove(key)

    def clear(self) -> None:
        """Forget all anchors. What was learned of the threshold stays."""
        self._anchors.clear()

    def report(self, tenant: str = "") -> GuardReport | None:
        """What is promised, known and audited of a tenant, also in words; None for one who has not asked lately."""
        return self._guards.report(tenant)

    def state(self) -> str:
        """In words: what is served, or why nothing is."""
        if not self._signer.ready:
            return f"serves nothing: the {self._signer.name} key is still learned, {len(self._anchors)} texts seen"
        return self._guards.state()

    def statistics(self) -> dict[str, float]:
        """Counters and gauges by name. ``lookups`` are those that asked for near-duplicates; ``found``, those of them
        with a candidate that no guard refused and that could be served or was to be audited; the rest as
        ``TenantGuards.statistics`` has it."""
        counts = dict.fromkeys(("lookups", "found", "served", "labelled"), 0) | self._counts
        refused = {f"refused_{why}": count for why, count in sorted(self._refused.items())}
        held = self._anchors.memory_bytes() + self._guards.memory_bytes()
        return counts | refused | {"anchors": len(self._anchors), "bytes": held} | self._guards.statistics()

    def _sign(self, query: Query) -> Signature | None:
        """None while there are no signatures yet; ``_useless`` for one that has no direction."""
        signature = query.signature
        if signature is None:
            if not self._signer.ready:
                return None
            signature = self._signer.sign(query.ids)
        return signature if has_direction(signature) else self._useless

    def _unrefused(self, reading: Reading, near: list[tuple[Anchor, float]]) -> Candidate | None:
        """The nearest that no guard refuses."""
        judge = Judge(reading, self.options.strictness)
        for anchor, cosine in near:
            why = judge.refusal(anchor.reading)
            if why is None:
                return Candidate(anchor.key, cosine)
            self._refused[why] += 1
        return None

    def _label(self, tenant: str, look: Look, row: NDArray[np.float32]) -> bool:
        assert look.nearest is not None
        other = self._rows(look.nearest.key)
        if other is None:
            self._anchors.remove(look.nearest.key)
            return False
        self._counts["labelled"] += 1
        right = cosine_of(other, row) >= self.options.cosine
        return self._guards.of(tenant).observe(look.nearest.similarity, right, look.would_serve)

    def _sign_waiting(self) -> None:
        """A few of the anchors from before there were signatures: all at once would hold up whoever waits meanwhile."""
        for _ in range(_SIGNED_AT_ONCE):
            found = self._anchors.waiting()
            if found is None:
                return
            anchor, ids = found
            signature = self._signer.sign(ids)
            if has_direction(signature):
                self._anchors.sign(anchor, signature)
            else:
                self._anchors.remove(anchor.key)


def has_direction(signature: Signature) -> bool:
    """Whether its square is a number that float32 can hold and divide by."""
    wide = signature.astype(np.float64)
    return 1e-30 < float(wide.dot(wide)) < 1e30


def cosine_of(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Between two rows of any length; -1 where one has no direction, or is not finite."""
    wide, narrow = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(wide) * np.linalg.norm(narrow))
    cosine = float(wide @ narrow) / lengths if lengths else -1.0
    return cosine if np.isfinite(cosine) else -1.0
