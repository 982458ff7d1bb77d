"""Federated caching: instances tell each other what they have, through plain Redis, and each looks up in its own copy.

One bounded stream a scope (model, tenant, kind of signature) carries announcements: a key, a signature to search by, a
note. Values do not travel: they lie in the second level, and are fetched when there is a hit. A newcomer loads a
snapshot, then reads on from where that was taken.

Rejected: to send look-ups around (every miss would cost a round trip to every instance); to route each text to an owner
(near-duplicates have other owners, and an owner's death empties its part; ``bench/federated.py`` compares both);
search inside Redis (needs a module, and one more process that can hold everything up).

Whatever happens to Redis or to another instance, requests are answered as if this instance were alone. Nothing here is
awaited by a request. An announcement that is lost, late, doubled or damaged costs a miss: what an instance finds in
its copy is only a hit once the value was fetched, and values prove what key they belong to. With a ``secret`` so does a
forged one; without, whoever may write to Redis is believed, and could write values as well.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from tandem.caching.base import Key
from tandem.caching.breaker import Breaker, BreakerOptions
from tandem.caching.federated_board import Board
from tandem.caching.federated_follower import Follower
from tandem.caching.federated_outbox import Outbox, end, ended, persist
from tandem.caching.federated_replica import Replica
from tandem.caching.federated_snapshot import SnapshotOptions, Snapshots
from tandem.caching.federated_wire import INSTANCE_BYTES, Addition, Announcement, Scope, StreamId, Wire
from tandem.clock import Clock
from tandem.errors import ConfigError

log = logging.getLogger("tandem.caching")

_RECENTLY_S = 600.0
# Removals of our own that are told again where the stream was lost.
_REMEMBERED = 4096


class FederationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``queue_entries``: announcements that may wait to be sent. ``batch_entries``: how many are sent or read at once.
    ``wait_s``: how long one read waits for news. ``note_bytes``: the longest note. ``secret``: when given, all
    instances must have the same, and what was written without it is dropped. ``drain_s``: how long closing goes on
    sending what waits. ``replay``: for who keeps elsewhere, say on a disk, what others may have removed while it was
    away: of what a snapshot covers, the removals that the stream remembers are folded, too."""

    queue_entries: int = 10_000
    batch_entries: int = 256
    wait_s: float = 1.0
    note_bytes: int = 4096
    secret: bytes = b""
    drain_s: float = 0.5
    replay: bool = False
    # Nobody waits for a try that fails, and each second without news costs hits: so they are closer together.
    breaker: BreakerOptions = BreakerOptions(most_s=2.0)
    snapshots: SnapshotOptions = SnapshotOptions()

    def __post_init__(self) -> None:
        if min(self.queue_entries, self.batch_entries, self.wait_s) <= 0:
            raise ConfigError("a federation's queue_entries, batch_entries and wait_s are over 0")
        if not 0 <= self.note_bytes <= 0xFFFF:
            raise ConfigError(f"a federation's note_bytes are 0 to 65535, not {self.note_bytes}")
        if len(self.secret) > 64:
            raise ConfigError(f"a federation's secret has at most 64 bytes, not {len(self.secret)}")


class Federation:
    """One instance's part in one scope. All of it belongs to one event loop's thread."""

    def __init__(self, board: Board, scope: Scope, replica: Replica, options: FederationOptions, clock: Clock) -> None:
        self.drain_s = options.drain_s
        self.instance = secrets.token_bytes(INSTANCE_BYTES)
        self.wire = Wire(scope, secret=options.secret, note_bytes=options.note_bytes)
        self._board = board
        self._replica = replica
        self._options = options
        self._clock = clock
        self._outbox = Outbox(board.append, entries=options.queue_entries, batch=options.batch_entries)
        self._snapshots = Snapshots(board, self.wire, replica, options.snapshots)
        self._follower = Follower(board, self.wire, replica, self._snapshots, self.instance, replay=options.replay)
        self._reads = Breaker("Reading the federated cache", options.breaker)
        self._writes = Breaker("Writing to the federated cache", options.breaker)
        self._counters: Counter[str] = Counter()
        self._removed: OrderedDict[Key, float] = OrderedDict()
        # At most one.
        self._lasting: dict[Key, float] = {}
        self._at_end_s = clock.now()
        self._tasks: list[asyncio.Task[None]] = []

    def announce(
        self, added: Sequence[Addition] = (), removed: Sequence[Key] = (), when: Mapping[Key, float] | None = None
    ) -> None:
        """Tell the others; returns at once. Values must be in the second level by now, or the others will look for
        them in vain. ``when`` the keys were removed, by the calendar; now, where that is not said. Raises ValueError
        for keys, signatures or notes of lengths that the scope does not have."""
        wall_s = self._clock.wall()
        for key in removed:
            self._tell(key, (when or {}).get(key, wall_s))
            self._removed.pop(key, None)
            self._removed[key] = (when or {}).get(key, wall_s)
            if len(self._removed) > _REMEMBERED:
                self._removed.popitem(last=False)
        for one in added:
            self._tell(one, wall_s)

    def announce_lasting(self, key: Key, wall_s: float) -> None:
        """Announce a removal that stands for all of its kind before it. Where the stream was lost it is told again
        until the next of its kind, however many others came since. Raises ValueError as ``announce``."""
        self._tell(key, wall_s)
        self._lasting = {key: wall_s}

    def start(self) -> None:
        """Begin to read and write in the background; to be called within the event loop, once."""
        parts = {
            "read": persist(self._read, self._reads, self._clock, self._failed),
            "write": persist(self._outbox.step, self._writes, self._clock, self._failed),
            "keep": self._keep(),
        }
        self._tasks = [asyncio.create_task(part, name=f"federated {name}") for name, part in parts.items()]
        for task in self._tasks:
            task.add_done_callback(ended)

    async def caught_up(self) -> None:
        """Wait until everything was read that there was; for as long as Redis is away, if need be."""
        await self._follower.caught_up.wait()

    async def keep(self) -> None:
        """Write a snapshot if one is due, which happens by itself in the background. Raises OSError."""
        read = self._follower.counters
        await self._snapshots.keep(self.place, self._counters["announced"] + read["added"] + read["removed"])

    async def close(self) -> None:
        """End the background work, then send what waits for at most ``drain_s``. Idempotent."""
        tasks, self._tasks = self._tasks, []
        await end(tasks)
        if tasks and self._writes.closed and self.drain_s > 0:
            with suppress(OSError):
                await self._outbox.drain(self.drain_s)
        await self._board.close()

    @property
    def place(self) -> StreamId:
        """The last entry of the stream that was read."""
        return self._follower.place

    def statistics(self) -> dict[str, float]:
        """Counters and gauges by name. ``newest_wall_s``: when the newest announcement that was read was made, by the
        calendar of who made it. ``behind_s``: since when there may be announcements that were not read; a read waits
        ``wait_s`` for them. ``peers``: other instances that announced something within the last ten minutes."""
        parts = {"": self._counters, "outbox_": self._outbox.counters}
        parts |= {"read_": self._follower.counters, "snapshot_": self._snapshots.counters}
        since_s = self._clock.wall() - _RECENTLY_S
        counters = {prefix + name: float(count) for prefix, part in parts.items() for name, count in part.items()}
        return counters | {
            "entries": float(len(self._replica)),
            "waiting": float(len(self._outbox)),
            "breaker_opened": float(self._reads.opened + self._writes.opened),
            "newest_wall_s": self._follower.newest_wall_s,
            "behind_s": self._clock.now() - self._at_end_s,
            "peers": float(sum(wall_s >= since_s for wall_s in self._follower.heard.values())),
        }

    def state(self) -> str:
        """``ok``, or in words what is wrong."""
        over = [task.get_name() for task in self._tasks if task.done()]
        if over:
            return f"{', '.join(over)} has ended: a bug, see the log"
        now = self._clock.now()
        states = [breaker.state(now) for breaker in (self._reads, self._writes)]
        return next((state for state in states if state != "ok"), "ok")

    def _tell(self, what: Addition | Key, wall_s: float) -> None:
        frame = self.wire.announcement(Announcement(what, self.instance, wall_s))
        self._outbox.put(frame)
        self._counters["announced"] += 1
        self._counters["announced_bytes"] += len(frame)

    async def _read(self) -> None:
        # A probe asks for what is there and waits for nothing.
        wait_s = self._options.wait_s if self._reads.closed else 0.0
        restarts = self._follower.counters["restarts"]
        await self._follower.step(self._options.batch_entries, wait_s)
        if self._follower.counters["restarts"] != restarts:
            # What is not there any more may not have been read by all. That something was added is only good to know.
            for key, wall_s in (self._removed | self._lasting).items():
                self._tell(key, wall_s)
        if self._follower.at_end:
            self._at_end_s = self._clock.now()

    def _failed(self, error: OSError) -> None:
        self._counters["errors"] += 1
        # Whichever way it failed: on the other side of it there may be another Redis.
        self._follower.doubt()
        log.debug("the federated cache: %s", error)

    async def _keep(self) -> None:
        """See to it that there is a snapshot; only who has read everything writes one."""
        await self.caught_up()
        while True:
            await asyncio.sleep(self._options.snapshots.look_s)
            try:
                if self._reads.closed:
                    await self.keep()
            except OSError as error:
                self._failed(error)
