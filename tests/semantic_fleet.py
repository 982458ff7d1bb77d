"""Semantic caches that are shared, without Redis: a board and values in memory, as bad as a test wants them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

from tandem.caching.federated_board import Board
from tandem.caching.federated_wire import START, Scope, Wire
from tandem.clock import ManualClock
from tandem.semantic.base import Item, Namespace, SemanticOptions
from tandem.semantic.journal import Journal
from tandem.semantic.service import SemanticService
from tandem.sharing.copies import SharingOptions
from tandem.sharing.members import Members
from tandem.sharing.notes import scope_of
from tandem.sharing.semantic import SharedSemantic
from tandem.vectors.base import IndexOptions
from tandem.vectors.linear import LinearIndex
from tests.federated_board import DIMS, MemoryBoard, MemoryValues, rows, until

OURS = Namespace("tenant", "name", "model")
VECTORS = rows(20)


class Hall:
    """Where the instances of a test meet."""

    def __init__(self) -> None:
        self.boards: defaultdict[bytes, MemoryBoard] = defaultdict(MemoryBoard)
        self.kept: defaultdict[bytes, MemoryValues] = defaultdict(MemoryValues)
        self.closed = 0
        self.silence = asyncio.Event()
        """While it is not set, nothing is answered."""
        self.silence.set()

    def board(self, scope: Scope) -> Board:
        board = self.boards[scope.id()]
        board.silence = self.silence
        return board

    def values(self, wire: Wire) -> MemoryValues:
        return self.kept[wire.scope.id()]

    async def close(self) -> None:
        self.closed += 1

    def fail(self, trouble: OSError | None) -> None:
        for board in self.boards.values():
            board.trouble = trouble
        for values in self.kept.values():
            values.trouble = trouble


class Fleet:
    def __init__(self) -> None:
        self.hall = Hall()
        self.clock = ManualClock(1e9)
        self.instances: list[SharedSemantic] = []

    def join(self, folder: Path | None = None, **limits: Any) -> SharedSemantic:
        journal = None if folder is None else Journal(folder)
        service = SemanticService(
            SemanticOptions(), lambda dims: LinearIndex(IndexOptions(dims=dims)), self.clock, journal
        )
        instance = SharedSemantic(service, self.clock, self.hall, SharingOptions(**({"ask_every_s": 0.0} | limits)))
        instance.start()
        self.instances.append(instance)
        return instance

    async def restarted(self, instance: SharedSemantic, folder: Path) -> SharedSemantic:
        """Another in its place that has its folder, once it has caught up."""
        self.instances.remove(instance)
        await instance.close()
        again = self.join(folder)
        await self.settled()
        return again

    async def settled(self, namespace: Namespace = OURS) -> None:
        """Everyone who has a part in it has read everything that is written, and nothing waits to be. If anything is
        written, everyone has a part in it."""
        board = self.hall.boards[scope_of(namespace, "int8", DIMS).id()]
        place = (namespace, DIMS)
        await until(lambda: all(self.is_quiet(one, board, place) for one in self.instances))
        for instance in self.instances:
            async with asyncio.timeout(30):
                while board.stream and members_of(instance).get(place) is None:
                    await instance.lookup(namespace, VECTORS[-1], 1.0)
                    await asyncio.sleep(0)
        await until(lambda: all(self.is_quiet(one, board, place) for one in self.instances))

    def is_quiet(self, instance: SharedSemantic, board: MemoryBoard, place: tuple[Namespace, int]) -> bool:
        member = members_of(instance).get(place)
        if member is None:
            return True
        cache = member.cache
        counts = cache.statistics()
        last = board.stream[-1][0] if board.stream else START
        return counts["unshared"] == counts["waiting"] == 0 and cache.federation.place == last


def members_of(instance: SharedSemantic) -> Members:
    assert instance.members is not None
    return instance.members


def item(number: int, **fields: Any) -> Item:
    return Item(vector=VECTORS[number], payload=b'{"n":%d}' % number, text=f"text {number}", **fields)


async def found(instance: SharedSemantic, number: int, namespace: Namespace = OURS) -> list[str]:
    """Ids of what is found for a vector."""
    return [hit.id for hit in (await instance.lookup(namespace, VECTORS[number], 0.95)).hits]


def state_of(instance: SharedSemantic) -> str:
    report = instance.federation()
    assert report is not None
    return report.state
