"""The semantic cache as a service: payloads by meaning."""

from tandem.semantic.base import (
    Hit,
    Item,
    Lookup,
    Namespace,
    NamespaceStatistics,
    PromiseReport,
    SemanticOptions,
    SemanticStatistics,
)
from tandem.semantic.cache import SemanticCache
from tandem.semantic.journal import Journal

__all__ = [
    "Hit",
    "Item",
    "Journal",
    "Lookup",
    "Namespace",
    "NamespaceStatistics",
    "PromiseReport",
    "SemanticCache",
    "SemanticOptions",
    "SemanticStatistics",
]
