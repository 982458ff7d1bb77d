"""A registry of named, lazily imported implementations: the whole plug-in system.

A seam's ``__init__`` registers ``name -> "module:attribute"``. Names feed the command line's choices, the error
texts, the contract tests and the comparisons; nothing is imported until it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Generic, TypeVar, cast

from tandem.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a name to a factory that is imported on first use."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._targets: dict[str, str] = {}

    def register(self, name: str, target: str) -> None:
        """Add ``name -> "package.module:attribute"``. Raises ConfigError when the name is taken."""
        if name in self._targets:
            raise ConfigError(f"{self.kind} {name!r} is registered twice")
        self._targets[name] = target

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._targets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def get(self, name: str) -> T:
        """Import and return the factory. Raises ConfigError for an unknown name, naming the known ones."""
        target = self._targets.get(name)
        if target is None:
            raise ConfigError(f"unknown {self.kind} {name!r}; known are: {', '.join(self._targets)}")
        module, _, attribute = target.partition(":")
        return cast(T, getattr(import_module(module), attribute))
