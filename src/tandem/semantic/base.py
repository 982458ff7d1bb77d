"""What the semantic cache takes and gives.

Shapes: a vector is float32 [d]; it need not be of length 1. Similarity is the cosine, in [-1, 1]. Times in seconds.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.verification import GuardOptions, GuardReport, Promise

Vector: TypeAlias = NDArray[np.float32]

NO_VECTOR: Vector = np.empty(0, np.float32)

_THEIRS = "theirs: "
# No fingerprint begins so.


class Namespace(msgspec.Struct, frozen=True, array_like=True):
    """Entries of one namespace never meet those of another. ``model`` is what made the vectors: the fingerprint of a
    model served here (``served_by``), or whatever a caller calls his own; cosines across models mean nothing."""

    tenant: str
    name: str
    model: str = ""

    def __str__(self) -> str:
        return f"namespace {self.name!r}"

    @classmethod
    def of(cls, tenant: str, name: str, made: str | None, served_model: str) -> Namespace:
        """For vectors that a caller made with ``made``, as he calls it, or, None, that are the served model's."""
        return cls(tenant, name, served_model if made is None else _THEIRS + made)

    def is_former(self, served_model: str) -> bool:
        """Whether its vectors are of a model that was served before ``served_model``, so that nobody can ask for them
        by text. False where it is not known what is served."""
        return bool(served_model) and self.model != served_model and not self.model.startswith(_THEIRS)


class SemanticOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits. ``budget_bytes`` holds vectors, payloads, texts and their books; over it, entries that nobody asked for
    go first, from the tenant that holds the most.

    ``served_model`` is the fingerprint of what is served, empty where that is not known. Namespaces of a model that
    was served before it are kept, as the former model may come back, but they stand in nobody's way: over the budget
    theirs are the first entries to go, whichever tenant's they are, and where a limit on namespaces is reached they
    make room. Rejected: to drop them at the start, as a change of the model that is taken back an hour later would
    cost all that was stored.
    """

    served_model: str = ""
    budget_bytes: int = 1 << 30
    max_namespaces: int = 1000
    max_tenant_namespaces: int = 100
    max_payload_bytes: int = 1 << 20
    max_text_bytes: int = 1 << 16
    max_k: int = 100
    max_dims: int = 8192
    default_ttl_s: float | None = None
    max_ttl_s: float = 10 * 365 * 86400.0
    max_promises: int = 4
    """Of one namespace: each learns a threshold of its own."""
    max_pending: int = 10_000
    """Audits of one namespace that wait for their feedback; the oldest are given up."""
    guard: GuardOptions = GuardOptions()

    def __post_init__(self) -> None:
        for name in (
            "budget_bytes",
            "max_namespaces",
            "max_tenant_namespaces",
            "max_payload_bytes",
            "max_k",
            "max_dims",
            "max_promises",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the semantic cache must be 1 or more, got {getattr(self, name)}")
        if self.default_ttl_s is not None and not 0 < self.default_ttl_s <= self.max_ttl_s:
            raise ConfigError(f"default_ttl_s must be over 0 and at most {self.max_ttl_s}, got {self.default_ttl_s}")


class Item(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is to be kept: ``payload`` is JSON as bytes and comes back as it is, unread. ``id`` None lets the cache
    choose one; an id that is there is replaced. ``ttl_s`` None means the cache's default. ``vector`` is ``NO_VECTOR``
    until it was computed."""

    vector: Vector
    payload: bytes
    text: str | None = None
    ttl_s: float | None = None
    id: str | None = None


class Hit(msgspec.Struct, frozen=True):
    """An entry that was found. ``payload`` is JSON."""

    id: str
    similarity: float
    payload: bytes
    age_s: float
    text: str | None = None


class Lookup(msgspec.Struct, frozen=True):
    """An answer. ``hits`` are the nearest first.

    ``threshold`` is what they reach: a cosine, or, verified, an estimated probability of being right, which is None
    while nothing may be served. Of a verified look-up: with ``audit`` the caller is asked to compute the true answer as
    well, to compare, and to report by ``lookup_id``; ``candidate`` is what to compare with where nothing is served. It
    keeps no promise.
    """

    hits: list[Hit]
    threshold: float | None
    lookup_id: str | None = None
    audit: bool = False
    candidate: Hit | None = None


class PromiseReport(msgspec.Struct, frozen=True):
    """One promise of one namespace, as it stands."""

    promise: Promise
    report: GuardReport


class NamespaceStatistics(msgspec.Struct, frozen=True):
    """``former_model``: its vectors are of a model that is no longer served. ``feedback_right`` and ``feedback_wrong``
    count what was reported beside audits, which teaches no threshold."""

    entries: int
    bytes: int
    index_bytes: int
    lookups: int
    lookup_hits: int
    feedback_right: int
    feedback_wrong: int
    promises: list[PromiseReport]
    former_model: bool = False


class SemanticStatistics(msgspec.Struct, frozen=True):
    """Of the whole cache since its start. ``former_namespaces`` and ``former_bytes`` are those of ``namespaces`` and
    ``bytes`` that are of a model that is no longer served, and go first."""

    namespaces: int
    former_namespaces: int
    entries: int
    bytes: int
    former_bytes: int
    index_bytes: int
    lookups: int
    lookup_hits: int
    stored: int
    evicted: int
    expired: int
    audited: int = 0
    """Audits that feedback answered, under all promises."""
    audited_wrong: int = 0
    alarms: int = 0
    """How often audits showed a promise to be broken."""
