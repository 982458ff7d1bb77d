"""Reads what the others have written, from wherever this instance is up to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from tandem.caching.base import Key
from tandem.caching.federated_board import Board
from tandem.caching.federated_replica import Replica, fold
from tandem.caching.federated_snapshot import Snapshots
from tandem.caching.federated_wire import START, Addition, Announcement, Fault, StreamId, Wire

# An instance that is started anew is another one.
_PEERS = 256


# Entries read at once where nothing but removals is looked for.
_REPLAYED = 256


class Follower:
    """Keeps a replica in step with the stream.

    Redis says nothing of entries that fell off the stream before they were read. They can only be missing where the
    stream begins after our place in it, and that is looked at when we have reason to: at the start, after an error,
    and when a read came back full, as then we are behind. Who may have missed something takes the snapshot in, and
    then reads on. Sometimes that is done for nothing; it is never left out when it was needed.

    Nor does Redis say that it was restarted empty, or with an older state, perhaps under a clock that was set back. The
    stream then ends before our place, or goes past it and does not have it; it is read from its beginning.
    """

    def __init__(
        self, board: Board, wire: Wire, replica: Replica, snapshots: Snapshots, instance: bytes, *, replay: bool = False
    ) -> None:
        """``replay``: as in ``FederationOptions``."""
        self.counters: Counter[str] = Counter()
        self.place: StreamId = START
        """The last entry that was read."""
        self.newest_wall_s = 0.0
        """When the newest announcement was made, by the calendar of who made it."""
        self.heard: dict[bytes, float] = {}
        """The same of each instance that was heard of, the last one last."""
        self.at_end = False
        """The last step came to the end of the stream."""
        self.caught_up = asyncio.Event()
        """Set once the end of the stream was reached for the first time."""
        self._board = board
        self._wire = wire
        self._replica = replica
        self._snapshots = snapshots
        self._instance = instance
        self._replay = replay
        self._new = True
        self._doubt = True

    def doubt(self) -> None:
        """Something went wrong: entries may have been missed."""
        self._doubt = True

    async def step(self, count: int, wait_s: float) -> None:
        """Read the next ``count`` entries at most, waiting so long for one. Raises OSError."""
        if self._new:
            await self._begin()
        self.at_end = False
        entries = await self._board.read(self.place, count, wait_s)
        if (self._doubt or not entries or len(entries) == count) and not await self._goes_on():
            return
        # A snapshot that was taken in now may cover some of them already.
        await self._fold([data for place, data in entries if place > self.place])
        if entries:
            self.place = max(self.place, entries[-1][0])
        if len(entries) < count:
            self.at_end = True
            self.caught_up.set()

    async def _begin(self) -> None:
        covered = await self._load()
        self.counters["snapshots_loaded"] += covered is not None
        # Without a snapshot, from the beginning of what there is.
        self.place = covered or START
        self._new = False

    async def _load(self) -> StreamId | None:
        """Take the snapshot in; returns the place that it covers, None when there is none. Raises OSError."""
        covered = await self._snapshots.load()
        if covered is not None and self._replay:
            await fold(self._replica, [], await self._removed_by(covered))
        return covered

    async def _removed_by(self, covered: StreamId) -> dict[Key, float]:
        """Keys of which the last that the stream has up to ``covered`` is that they were removed, and when. Raises
        OSError."""
        removed: dict[Key, float] = {}
        place = START
        while place < covered:
            entries = await self._board.read(place, _REPLAYED, 0.0)
            if not entries:
                break
            place = entries[-1][0]
            for announced in [self._wire.read_announcement(data) for at, data in entries if at <= covered]:
                if isinstance(announced, Fault):
                    continue  # It is counted where it is read in its turn.
                if isinstance(announced.what, Addition):
                    removed.pop(announced.what.key, None)
                else:
                    removed[announced.what] = announced.wall_s
        return removed

    async def _goes_on(self) -> bool:
        """Whether the stream is still the one that we have a place in. If we missed a part of it, the snapshot is taken
        in now. Raises OSError."""
        view = await self._board.view(self.place)
        if self.place == START:
            self._doubt = False
            return True
        if view.last < self.place or (view.first <= self.place and not view.holds):
            self.counters["restarts"] += 1
            self.place = START
            return False
        if view.first > self.place:
            self.counters["gaps"] += 1
            covered = await self._load()
            if covered is None or covered < self.place:
                self.counters["gaps_left"] += 1
            else:
                self.counters["resyncs"] += 1
                self.place = covered
        self._doubt = False
        return True

    async def _fold(self, entries: Sequence[bytes]) -> None:
        """Take entries in. What comes last about a key counts, but that it was removed is told in any case: by time,
        what was added after that may be what was there before."""
        added: dict[Key, Addition] = {}
        removed: dict[Key, float] = {}
        for data in entries:
            announced = self._wire.read_announcement(data)
            if isinstance(announced, Fault):
                self.counters[f"dropped_{announced}"] += 1
            elif announced.origin == self._instance:
                self.counters["own"] += 1
            else:
                self._note(announced, added, removed)
        if added or removed:
            refused = await fold(self._replica, list(added.values()), removed)
            self.counters["refused"] += refused
            self.counters["added"] += len(added) - refused
            self.counters["removed"] += len(removed)

    def _note(self, announced: Announcement, added: dict[Key, Addition], removed: dict[Key, float]) -> None:
        self.newest_wall_s = announced.wall_s
        self.counters["heard"] += 1
        self.heard.pop(announced.origin, None)
        self.heard[announced.origin] = announced.wall_s
        if len(self.heard) > _PEERS:
            del self.heard[next(iter(self.heard))]
        what = announced.what
        if isinstance(what, Addition):
            added[what.key] = what
        else:
            added.pop(what, None)
            removed[what] = announced.wall_s
