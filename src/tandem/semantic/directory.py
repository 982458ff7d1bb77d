"""The namespaces as callers name them: which there are, and whether what is asked of one makes sense."""

from __future__ import annotations

from tandem.clock import Clock
from tandem.semantic import checks
from tandem.semantic.base import Item, Namespace, SemanticOptions
from tandem.semantic.shelves import Shelves
from tandem.semantic.space import ENTRY_BYTES, Space
from tandem.verification import Promise


class Directory:
    """Of one cache. What it refuses, ``SemanticCache`` would refuse as well: it is for who computes a vector, and does
    so only where the rest of the request is good."""

    def __init__(self, options: SemanticOptions, shelves: Shelves, clock: Clock) -> None:
        self._options = options
        self._shelves = shelves
        self._clock = clock

    def dims(self, namespace: Namespace) -> int | None:
        """Of its vectors; None for a namespace that is not there."""
        space = self._shelves.find(namespace, self._clock.now())
        return None if space is None else space.index.dims

    def places(self) -> list[tuple[Namespace, int]]:
        """Namespaces and the length of their vectors, but for those of a model that is no longer served."""
        return [(space.namespace, space.index.dims) for space in self._shelves if not space.is_former]

    def storable(self, namespace: Namespace, item: Item) -> Space | None:
        """Where to store it, None where that is to be made; there is room then. Raises InvalidInput, PayloadTooLarge
        for all but the vector."""
        checks.namespace(namespace)
        checks.item(item, self._options)
        now = self._clock.now()
        space = self._shelves.find(namespace, now)
        if space is None:
            self._shelves.make_room(namespace, now)
        return space

    def check_store(self, namespace: Namespace, item: Item, dims: int) -> None:
        """Raises what ``store`` would, but for numbers that are no direction; ``dims``: of the vector to come."""
        space = self.storable(namespace, item)
        checks.dims(dims, space.index.dims if space else None, self._options)
        checks.fits(len(item.payload) + 4 * dims + ENTRY_BYTES, self._options)

    def check_lookup(
        self, namespace: Namespace, dims: int, k: int, text: str | None = None, promise: Promise | None = None
    ) -> None:
        """Raises what ``lookup``, or with a ``promise`` ``lookup_verified``, would, but for the threshold and numbers
        that are no direction; ``dims``: of the vector to come."""
        checks.namespace(namespace)
        checks.k(k, self._options)
        checks.text(text, self._options)
        if promise is not None:
            checks.promise(promise)
        space = self._shelves.find(namespace, self._clock.now())
        checks.dims(dims, space.index.dims if space else None, self._options)
        if space is not None and promise is not None:
            space.verdicts.guard(promise)
