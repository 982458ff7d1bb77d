"""A board in memory, as bad as a test wants it, and what stands on it: replicas, federations."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import numpy as np

from tandem.caching.base import Key
from tandem.caching.federated import Federation, FederationOptions
from tandem.caching.federated_board import View
from tandem.caching.federated_replica import IndexReplica
from tandem.caching.federated_wire import START, Scope, StreamId
from tandem.clock import Clock, ManualClock
from tandem.types import Rows
from tandem.vectors.base import IndexOptions
from tandem.vectors.linear import LinearIndex

DIMS = 8
SCOPE = Scope(model="a model", namespace="a tenant", codec="int8", signature_bytes=DIMS)


class MemoryBoard:
    """What all instances of a test share. ``trouble``: raised by every call while it is set."""

    def __init__(self, stream_entries: int = 1000) -> None:
        self.trouble: OSError | None = None
        self.silence: asyncio.Event | None = None
        """While it is there and not set, no call is answered."""
        self.stream: list[tuple[StreamId, bytes]] = []
        self.blobs: dict[str, bytes] = {}
        self.stream_entries = stream_entries
        self.calls = 0
        self._last = START
        self._starts = 0

    def restart(self) -> None:
        """It comes back empty, and its clock is that of the beginning, but for the last figure."""
        self.stream, self.blobs, self._last = [], {}, START
        self._starts += 1

    async def append(self, entries: Sequence[bytes]) -> None:
        await self._call()
        for entry in entries:
            self._last = (self._last[0] + 1, self._starts)
            self.stream.append((self._last, entry))
        del self.stream[: -self.stream_entries]

    async def read(self, after: StreamId, count: int, wait_s: float) -> list[tuple[StreamId, bytes]]:
        await self._call()
        return [entry for entry in self.stream if entry[0] > after][:count]

    async def view(self, place: StreamId) -> View:
        await self._call()
        places = [entry[0] for entry in self.stream]
        return View(places[0], places[-1], place in places) if places else View(START, START, holds=False)

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        await self._call()
        return [self.blobs.get(name) for name in names]

    async def put(self, blobs: Mapping[str, bytes], expire_s: float) -> None:
        await self._call()
        self.blobs.update(blobs)

    async def expire(self, names: Sequence[str], expire_s: float) -> None:
        await self._call()
        for name in names:
            self.blobs.pop(name, None)

    async def claim(self, name: str, holder: bytes, expire_s: float) -> bool:
        await self._call()
        return self.blobs.setdefault(name, holder) is holder

    async def close(self) -> None:
        """The test's own."""

    async def _call(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.silence is not None:
            await self.silence.wait()
        if self.trouble is not None:
            raise self.trouble


def key_of(name: object) -> Key:
    return hashlib.blake2b(str(name).encode(), digest_size=16).digest()


async def until(there: Callable[[], bool]) -> None:
    """Wait on a state of something that runs in this loop."""
    async with asyncio.timeout(30):
        for _ in count():
            if there():
                return
            await asyncio.sleep(0)


def rows(n: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=(n, DIMS)).astype(np.float32)


def replica(capacity: int = 10_000) -> IndexReplica:
    return IndexReplica(LinearIndex(IndexOptions(dims=DIMS, storage="int8")), "int8", capacity)


def federation(
    board: MemoryBoard,
    copy: IndexReplica,
    options: FederationOptions | None = None,
    scope: Scope = SCOPE,
    clock: Clock | None = None,
) -> Federation:
    return Federation(board, scope, copy, options or FederationOptions(), clock or ManualClock())


class MemoryValues:
    """Where all instances' values lie. ``trouble``: raised by every call while it is set."""

    def __init__(self) -> None:
        self.kept: dict[Key, bytes] = {}
        self.trouble: OSError | None = None
        self.asked: list[Key] = []

    async def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        self.asked += keys
        await self._call()
        return [self.kept.get(key) for key in keys]

    async def put(self, keys: Sequence[Key], values: Sequence[bytes]) -> None:
        await self._call()
        self.kept.update(zip(keys, values, strict=True))

    async def delete(self, keys: Sequence[Key]) -> None:
        await self._call()
        for key in keys:
            self.kept.pop(key, None)

    async def _call(self) -> None:
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
