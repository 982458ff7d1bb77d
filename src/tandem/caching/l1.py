"""L1: rows in this process's memory, within a budget of bytes.

Rows lie in one array, as their codec stores them, and everything else that is known of an entry lies in columns beside
it: no Python object is held an entry, the garbage collector has nothing to visit, and the budget is kept by arithmetic.
The arrays are asked for at once but the system gives their pages as they are filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.caching.base import Entry, Key
from tandem.caching.eviction_trial import Shelf, WindowTrial
from tandem.caching.l1_index import column
from tandem.caching.l1_tenants import Tenants
from tandem.clock import Clock
from tandem.errors import ConfigError, MemoryFault
from tandem.quantization import ROW_CODECS
from tandem.types import Rows, Tier

_words = Struct("<QQ").unpack
_TIERS = tuple(Tier)
_NUMBERS = {tier: number for number, tier in enumerate(_TIERS)}
# Tokens and tier of an entry, and when it came.
_FACTS_BYTES, _BORN_BYTES = 5, 8
# The objects around the arrays; slot 0, which is none, and the one that a new entry has before another goes.
_OBJECTS_BYTES = 32 << 10
_SPARE = 2


class L1Options(msgspec.Struct, frozen=True, kw_only=True):
    """``budget_bytes`` of memory for everything that the cache holds. ``codec``: how rows are stored, by name.
    ``ttl_s``: how long an entry is good, 0 for ever. ``tenant_share``: of the entries that fit, the largest share that
    one tenant may hold, over 0 and up to 1; beyond it a tenant's own entries make room for its new ones."""

    budget_bytes: int
    codec: str = "float32"
    ttl_s: float = 0.0
    tenant_share: float = 1.0


class L1Cache:
    """Entries by key, for one model. For one thread: the event loop's.

    All rows have the same width, so what an entry weighs is the same for all and the budget is a number of slots.
    """

    def __init__(self, options: L1Options, dims: int, clock: Clock) -> None:
        """Raises ConfigError for options out of range, an unknown codec, and a budget that holds no row or that the
        system refuses."""
        self.options, self.dims = options, dims
        self._now = clock.now
        self._codec = ROW_CODECS.get(options.codec)()
        self._ttl_s = options.ttl_s
        self._entry_bytes = entry_bytes(options, dims)
        self.slots = slots_of(options, dims)
        """How many entries fit."""
        self._misses = self._evictions = self._expired = self._rejected = 0
        self._hit_tokens = self._hits_before = self._borrowed = 0
        self._begin()

    def get(self, key: Key) -> Entry | None:
        """The entry, its row a copy that is the caller's for ever; None when there is none that is still good."""
        slot = self._find(key)
        if not slot:
            return None
        tokens = self._tokens[slot]
        self._hit_tokens += tokens
        return Entry(self._read(slot), tokens, _TIERS[self._tiers[slot]])

    def borrow(self, key: Key) -> Entry | None:
        """As ``get``, for who does not ask for the text of this key: the row is in use, and so it stays, but that is
        neither a hit nor a miss."""
        slot = self._shelf.index.find(*_words(key))
        if not slot or (self._ttl_s and _is_over(self._now() - self._born[slot], self._ttl_s)):
            return None
        # The trial of the window is not shown it: that takes in who is not there, as nobody does here.
        self._shelf.evictor.hit(slot)
        self._borrowed += 1
        return Entry(self._read(slot), self._tokens[slot], _TIERS[self._tiers[slot]])

    def get_many(self, keys: Sequence[Key]) -> list[Entry | None]:
        """One for each key, in order. The rows of one call lie in one array, so each keeps all of them alive."""
        slots = [self._find(key) for key in keys]
        held = [slot for slot in slots if slot]
        if not held:
            return [None] * len(slots)
        rows = iter(self._codec.decode(self._stored[held], self.dims))
        found: list[Entry | None] = []
        for slot in slots:
            if slot:
                tokens = self._tokens[slot]
                self._hit_tokens += tokens
                found.append(Entry(next(rows), tokens, _TIERS[self._tiers[slot]]))
            else:
                found.append(None)
        return found

    def put(self, keys: Sequence[Key], entries: Sequence[Entry], tenant: str = "") -> None:
        """Keep the entries, in the place of any under the same keys; a full cache lets older ones go, or does not let
        these in. A row with a NaN or an infinity is not kept: a device's bad moment would be served for good. Raises
        ValueError for a row that is not [dims] and for another number of keys, and then keeps none."""
        if len(keys) != len(entries):
            raise ValueError(f"{len(keys)} keys for {len(entries)} entries")
        if not keys:
            return
        # All that can fail is done before the first slot changes.
        rows = _rows_of(entries, self.dims)
        stored = self._codec.encode(rows)
        sound = np.flatnonzero(np.isfinite(rows).all(axis=1)).tolist()
        facts = [(entry.tokens, _NUMBERS[entry.tier]) for entry in entries]
        words = [_words(key) for key in keys]
        self._rejected += len(keys) - len(sound)
        # One by one: a later row of this list may need the slot of an earlier one.
        for index in sound:
            low, high = words[index]
            slot = self._shelf.index.find(low, high) or self._place(low, high, tenant)
            if slot:
                self._stored[slot] = stored[index]
                self._tokens[slot], self._tiers[slot] = facts[index]
                if self._ttl_s:
                    self._born[slot] = self._now()

    def remove(self, keys: Sequence[Key]) -> int:
        """Forget these; how many were there."""
        slots = {slot for key in keys if (slot := self._shelf.index.find(*_words(key)))}
        for slot in slots:
            self._drop(slot)
        return len(slots)

    def clear(self) -> None:
        """Forget everything, and give the memory back."""
        self._hits_before += self._shelf.evictor.hits
        self._begin()

    def __len__(self) -> int:
        """Entries held, those that have expired but were not asked for since included."""
        return len(self._shelf.evictor)

    def statistics(self) -> dict[str, float]:
        """Counters since the start: ``hits``, ``misses`` (of one key each: a text may be asked for by several),
        ``evictions``, ``expired``, ``rejected`` (rows with a NaN or an infinity), ``hit_tokens`` (tokens that need not
        be computed). Gauges: ``entries``, ``slots`` (entries that fit), ``bytes`` and ``budget_bytes``, ``window`` (the
        share of the slots that new entries have)."""
        return {
            "hits": self._hits_before + self._shelf.evictor.hits - self._borrowed,
            "misses": self._misses,
            "evictions": self._evictions,
            "expired": self._expired,
            "rejected": self._rejected,
            "hit_tokens": self._hit_tokens,
            "entries": len(self),
            "slots": self.slots,
            "bytes": self.memory_bytes(),
            "budget_bytes": self.options.budget_bytes,
            "window": self._trial.share,
        }

    def memory_bytes(self) -> int:
        """Bytes in use: of what grows with the entries, the slots that ever held one."""
        tenants = len(self._tenants) * Tenants.TENANT_BYTES if self._tenants is not None else 0
        trial = min(self.slots, WindowTrial.SLOTS) * WindowTrial.SLOT_BYTES
        return _OBJECTS_BYTES + trial + self._shelf.used * self._entry_bytes + tenants

    def check(self) -> None:
        """Prove that index, queues and tenants agree. Raises MemoryFault."""
        faults = self._shelf.check()
        if self._tenants is not None:
            faults += self._tenants.check(self._shelf.evictor.live())
        if len(self) > self.slots:
            faults.append(f"{len(self)} entries in {self.slots} slots")
        if faults:
            raise MemoryFault(f"the books of the L1 cache disagree: {'; '.join(faults[:5])}")

    def _begin(self) -> None:
        slots, options = self.slots, self.options
        try:
            self._shelf = Shelf(slots, 1.0)
            self._stored: NDArray[np.uint8] = np.zeros((slots + _SPARE, self._codec.row_bytes(self.dims)), np.uint8)
            self._tokens, self._tiers = column(slots + _SPARE, np.int32), column(slots + _SPARE, np.uint8)
            self._born = column(8 * (slots + _SPARE) if options.ttl_s else 0, np.uint8).cast("d")
            self._tenants = Tenants(slots, options.tenant_share) if options.tenant_share < 1 else None
        except MemoryError as error:
            raise ConfigError(f"the system refuses a cache of {options.budget_bytes:,} bytes: {error}") from error
        self._trial = WindowTrial(self._shelf.evictor)
        self._mask = self._trial.mask
        self._read = self._codec.reader(self._stored, self.dims)

    def _find(self, key: Key) -> int:
        """The slot of a key that was asked for, 0 for a miss; counted as what it is."""
        low, high = _words(key)
        if not high & self._mask:
            self._trial.show(low, high)
        slot = self._shelf.index.find(low, high)
        if slot and self._ttl_s and _is_over(self._now() - self._born[slot], self._ttl_s):
            self._expired += 1
            self._drop(slot)
            slot = 0
        if slot:
            self._shelf.evictor.hit(slot)
        else:
            self._misses += 1
        return slot

    def _place(self, low: int, high: int, tenant: str) -> int:
        """A slot for a new key, 0 when it is not let in."""
        tenants = self._tenants
        if tenants is not None and (full := tenants.full(tenant)):
            self._drop(self._shelf.evictor.idle(full))
            self._evictions += 1
        slot, gone = self._shelf.put(low, high)
        self._evictions += gone > 0
        if gone == slot:
            return 0
        if tenants is not None:
            if gone:
                tenants.remove(gone)
            tenants.add(tenant, slot)
        return slot

    def _drop(self, slot: int) -> None:
        self._shelf.remove(slot)
        if self._tenants is not None:
            self._tenants.remove(slot)


def _is_over(age_s: float, ttl_s: float) -> bool:
    # A clock that has gone back tells nothing about an entry: that one is over, too.
    return not 0.0 <= age_s < ttl_s


def _rows_of(entries: Sequence[Entry], dims: int) -> Rows:
    for entry in entries:
        if entry.row.shape != (dims,):
            raise ValueError(f"a row of {dims} numbers was expected, not {list(entry.row.shape)}")
        if not 0 <= entry.tokens < 1 << 31:
            raise ValueError(f"an entry of {entry.tokens} tokens")
    return np.array([entry.row for entry in entries], np.float32)


def entry_bytes(options: L1Options, dims: int) -> int:
    """What one entry costs."""
    row = ROW_CODECS.get(options.codec)().row_bytes(dims)
    born = _BORN_BYTES if options.ttl_s else 0
    owner = Tenants.SLOT_BYTES if options.tenant_share < 1 else 0
    return row + Shelf.SLOT_BYTES + _FACTS_BYTES + born + owner


def slots_of(options: L1Options, dims: int) -> int:
    """How many entries the budget holds. Raises ConfigError when that is none, or for options out of range."""
    if options.ttl_s < 0 or not 0 < options.tenant_share <= 1:
        raise ConfigError(f"a TTL is at least 0 and a tenant's share over 0 and up to 1, not {options}")
    each = entry_bytes(options, dims)
    free = options.budget_bytes - _OBJECTS_BYTES - _SPARE * each
    # The trial's caches are as large as this one while this one is small.
    slots = max((free - WindowTrial.BYTES) // each, min(free // (each + WindowTrial.SLOT_BYTES), WindowTrial.SLOTS))
    if slots < 1:
        least = least_bytes(options, dims)
        raise ConfigError(f"an L1 cache of {options.budget_bytes:,} bytes holds no row; the least is {least:,}")
    return slots


def least_bytes(options: L1Options, dims: int) -> int:
    """The smallest budget that holds an entry, whatever the options name."""
    return _OBJECTS_BYTES + (1 + _SPARE) * entry_bytes(options, dims) + WindowTrial.SLOT_BYTES
