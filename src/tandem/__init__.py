"""Tandem: a self-hosted text-embedding service.

The library is ``Embedder``; it is imported when it is first asked for, so ``import tandem`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tandem.embedder import Embedder

__version__ = "0.1.0"

__all__ = ["Embedder", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Embedder":
        from tandem.embedder import Embedder

        return Embedder
    raise AttributeError(f"module 'tandem' has no attribute {name!r}")
