"""Servers that share their semantic caches: ``semantic/`` over ``caching/federated*``, which do not know each other."""

from tandem.sharing.copies import RedisMeeting, SharingOptions
from tandem.sharing.members import FederationReport
from tandem.sharing.semantic import SharedSemantic

__all__ = ["FederationReport", "RedisMeeting", "SharedSemantic", "SharingOptions"]
