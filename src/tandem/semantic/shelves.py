"""All namespaces of a cache, and what they hold together: the budget, the limit of namespaces, the end of entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tandem.errors import InvalidInput
from tandem.semantic.base import Namespace, SemanticOptions
from tandem.semantic.eviction import Ages
from tandem.semantic.space import Entry, Space
from tandem.semantic.verdicts import Verdicts
from tandem.types import Rows
from tandem.vectors.base import Index


class Shelves:
    """Spaces by namespace, made on demand."""

    def __init__(self, options: SemanticOptions, make_index: Callable[[int], Index], epoch: str) -> None:
        self._options = options
        self._make_index = make_index
        self._epoch = epoch
        self._spaces: dict[Namespace, Space] = {}
        self._ages = Ages()
        self.evicted = 0
        self.expired = 0

    def __iter__(self) -> Iterator[Space]:
        return iter(self._spaces.values())

    def __len__(self) -> int:
        """Entries, of all namespaces."""
        return len(self._ages)

    @property
    def bytes(self) -> int:
        return self._ages.bytes

    def serials(self) -> set[int]:
        return self._ages.serials()

    def find(self, namespace: Namespace, now: float) -> Space | None:
        """What is there, some of what has expired cleared away."""
        space = self._spaces.get(namespace)
        if space is not None:
            self._expire(space, now)
        return space

    def open(self, namespace: Namespace, dims: int, now: float) -> Space:
        """A new one for vectors of ``dims``. Raises InvalidInput when as many as may be are in use, by all or by this
        tenant."""
        if self._is_full(namespace.tenant):
            self.sweep(now)
            for idle in [space for space in self if space.is_idle]:
                self.close(idle)
        if self._is_full(namespace.tenant):
            raise InvalidInput(
                f"as many namespaces are in use as may be, {self._options.max_tenant_namespaces:,} of a tenant and "
                f"{self._options.max_namespaces:,} of all; delete one",
                param="namespace",
            )
        verdicts = Verdicts(str(namespace), self._options, self._epoch)
        space = self._spaces[namespace] = Space(namespace, self._make_index(dims), verdicts)
        return space

    def admit(self, space: Space, entries: Sequence[Entry], rows: Rows) -> None:
        """Keep new entries, whose vectors are ``rows`` float32 [n, d]; others of their ids go, and so does what the
        budget can no longer hold, which may be some of these."""
        replaced = [old for entry in entries if (old := space.by_id(entry.id)) is not None]
        if replaced:
            self.drop(space, replaced)
        space.put(entries, rows)
        for entry in entries:
            self._ages.add(space, entry)
        while self._ages.bytes > self._options.budget_bytes:
            holder, entry = self._ages.victim()
            self.drop(holder, [entry])
            self.evicted += 1

    def drop(self, space: Space, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._ages.remove(space, entry)
        space.drop(entries)

    def close(self, space: Space) -> int:
        """Forget a namespace, and all that it learned; how many entries it held."""
        for entry in space:
            self._ages.remove(space, entry)
        del self._spaces[space.namespace]
        space.index.close()
        return len(space)

    def sweep(self, now: float) -> None:
        """Clear away some of what has expired, everywhere."""
        for space in self:
            self._expire(space, now)

    def _is_full(self, tenant: str) -> bool:
        own = sum(one.tenant == tenant for one in self._spaces)
        return own >= self._options.max_tenant_namespaces or len(self._spaces) >= self._options.max_namespaces

    def _expire(self, space: Space, now: float) -> None:
        due = list(space.due(now))
        if due:
            self.drop(space, due)
            self.expired += len(due)
