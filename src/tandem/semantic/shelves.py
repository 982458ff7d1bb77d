"""All namespaces of a cache, and what they hold together: the budget, the limit of namespaces, the end of entries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from tandem.errors import InvalidInput
from tandem.semantic.base import Namespace, SemanticOptions
from tandem.semantic.eviction import Ages
from tandem.semantic.space import Entry, Space
from tandem.semantic.verdicts import Verdicts
from tandem.types import Rows
from tandem.vectors.base import Index

# Entries of closed namespaces that one call lets go of: 0.1 ms.
_TORN_AT_ONCE = 128


class Shelves:
    """Spaces by namespace, made on demand.

    One that is closed is gone for callers and for the budget at once; its entries, perhaps a million objects to free,
    go in small parts: with each entry that is kept, so that no more pile up than come, and in ``sweep``.
    """

    def __init__(self, options: SemanticOptions, make_index: Callable[[int], Index], epoch: str) -> None:
        self._options = options
        self._make_index = make_index
        self._epoch = epoch
        self._spaces: dict[Namespace, Space] = {}
        self.ages = Ages()
        self._closed: deque[Space] = deque()
        self.evicted = 0
        self.expired = 0

    def __iter__(self) -> Iterator[Space]:
        return iter(self._spaces.values())

    def __len__(self) -> int:
        """Entries, of all namespaces."""
        return sum(map(len, self))

    def find(self, namespace: Namespace, now: float) -> Space | None:
        """What is there, some of what has expired cleared away."""
        space = self._spaces.get(namespace)
        if space is not None:
            self._expire(space, now)
        return space

    def make_room(self, namespace: Namespace, now: float) -> None:
        """See to it that ``open`` finds a place for one that is not there. What holds nothing goes first, then what is
        of a former model, the tenant's own before others'. Raises InvalidInput when as many as may be are in use, by
        all or by this tenant."""
        tenant = namespace.tenant
        if self._is_full(tenant):
            self.sweep(now)
            for idle in [space for space in self if space.is_idle]:
                self.close(idle)
        while self._is_full(tenant) and (former := self._former(namespace)) is not None:
            self.close(former)
        if self._is_full(tenant):
            raise InvalidInput(
                f"as many namespaces are in use as may be, {self._options.max_tenant_namespaces:,} of a tenant and "
                f"{self._options.max_namespaces:,} of all; delete one",
                param="namespace",
            )

    def open(self, namespace: Namespace, dims: int, now: float) -> Space:
        """A new one for vectors of ``dims``. Raises InvalidInput as ``make_room`` does."""
        self.make_room(namespace, now)
        verdicts = Verdicts(str(namespace), self._options, self._epoch)
        is_former = namespace.is_former(self._options.served_model)
        space = self._spaces[namespace] = Space(namespace, self._make_index(dims), verdicts, is_former)
        return space

    def admit(self, space: Space, entries: Sequence[Entry], rows: Rows) -> None:
        """Keep new entries, whose vectors are ``rows`` float32 [n, d]; others of their ids go, and so does what the
        budget can no longer hold, which may be some of these."""
        replaced = [old for entry in entries if (old := space.by_id(entry.id)) is not None]
        if replaced:
            self.drop(space, replaced)
        space.put(entries, rows)
        for entry in entries:
            self.ages.add(space, entry)
        while self.ages.bytes > self._options.budget_bytes:
            holder, entry = self.ages.victim()
            self.drop(holder, [entry])
            self.evicted += 1
        self.tear_down()

    def drop(self, space: Space, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.ages.remove(space, entry)
        space.drop(entries)

    def close(self, space: Space) -> int:
        """Forget a namespace, and all that it learned; how many entries it held."""
        del self._spaces[space.namespace]
        space.is_closed = True
        space.index.close()
        self.ages.free(space)
        self._closed.append(space)
        return len(space)

    def tear_down(self) -> bool:
        """Let go of some of what was closed; whether there is more."""
        if self._closed:
            space = self._closed[0]
            self.ages.forget(space, space.tear_down(_TORN_AT_ONCE))
            if not len(space):
                self._closed.popleft()
        return bool(self._closed)

    def sweep(self, now: float) -> bool:
        """Clear away some of what has expired, everywhere, and some of what was closed; whether there is more of
        the latter."""
        for space in self:
            self._expire(space, now)
        return self.tear_down()

    def _is_full(self, tenant: str) -> bool:
        is_full = len(self._spaces) >= self._options.max_namespaces
        return is_full or self._count(tenant) >= self._options.max_tenant_namespaces

    def _former(self, wanted: Namespace) -> Space | None:
        """The one of a former model that makes room for ``wanted``, the oldest; where the tenant has used up what it
        may have, one of its own. None for one that is itself of a former model."""
        if wanted.is_former(self._options.served_model):
            return None
        former = [space for space in self if space.is_former]
        own = [space for space in former if space.namespace.tenant == wanted.tenant]
        is_own_limit = self._count(wanted.tenant) >= self._options.max_tenant_namespaces
        return next(iter(own if own or is_own_limit else former), None)

    def _count(self, tenant: str) -> int:
        return sum(one.tenant == tenant for one in self._spaces)

    def _expire(self, space: Space, now: float) -> None:
        due = list(space.due(now))
        if due:
            self.drop(space, due)
            self.expired += len(due)
