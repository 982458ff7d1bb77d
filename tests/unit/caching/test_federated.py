"""Instances around one board: whatever becomes of it or of one of them, the worst that happens is a miss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from tandem.caching.base import Key
from tandem.caching.federated import Federation, FederationOptions
from tandem.caching.federated_follower import Follower
from tandem.caching.federated_replica import IndexReplica
from tandem.caching.federated_snapshot import SnapshotOptions, Snapshots
from tandem.caching.federated_wire import START, Addition, Announcement, Manifest, StreamId, Wire
from tandem.clock import ManualClock
from tandem.errors import ConfigError
from tests.federated_board import SCOPE, MemoryBoard, federation, key_of, replica, rows, until

WIRE = Wire(SCOPE)
OTHER = b"somebody"


class Site:
    """One instance, stepped by the test."""

    def __init__(self, board: MemoryBoard, *, every: int = 1000, capacity: int = 10_000) -> None:
        self.board = board
        self.copy = replica(capacity)
        self.snapshots = Snapshots(board, WIRE, self.copy, SnapshotOptions(every=every, chunk_entries=4))
        self.follower = Follower(board, WIRE, self.copy, self.snapshots, b"this one")

    async def read(self, count: int = 100) -> None:
        """Until nothing new comes."""
        while True:
            before = self.follower.place
            await self.follower.step(count, 0.0)
            if self.follower.place == before:
                return

    def knows(self, *names: object) -> bool:
        return all(key_of(name) in self.copy for name in names)


async def announce(board: MemoryBoard, *names: object, removed: tuple[object, ...] = ()) -> None:
    additions = replica().add([key_of(name) for name in names], rows(len(names))) if names else []
    what: list[Addition | Key] = [*additions, *(key_of(name) for name in removed)]
    await board.append([WIRE.announcement(Announcement(one, OTHER, 0.0)) for one in what])


@pytest.fixture
def board() -> MemoryBoard:
    return MemoryBoard()


async def test_additions_and_removals_are_folded_in_their_order(board: MemoryBoard) -> None:
    site = Site(board)
    await announce(board, 1, 2, 3, removed=(1, 2))
    await announce(board, 2)
    await site.read()
    assert [site.knows(i) for i in (1, 2, 3)] == [False, True, True]
    assert site.follower.caught_up.is_set()


async def test_it_knows_whether_it_came_to_the_end(board: MemoryBoard) -> None:
    site = Site(board)
    await announce(board, 1, 2, 3)
    ends = []
    for _ in range(3):
        await site.follower.step(2, 0.0)
        ends.append(site.follower.at_end)
    assert ends == [False, True, True], "two of two: there may be more"
    board.trouble = ConnectionError("gone")
    with pytest.raises(OSError, match="gone"):
        await site.follower.step(2, 0.0)
    assert not site.follower.at_end


async def test_its_own_announcements_are_skipped(board: MemoryBoard) -> None:
    site = Site(board)
    (addition,) = replica().add([key_of(1)], rows(1))
    await board.append([WIRE.announcement(Announcement(addition, b"this one", 0.0))])
    await site.read()
    assert len(site.copy) == 0
    assert site.follower.counters["own"] == 1


async def test_rubbish_is_dropped_and_what_follows_is_not(board: MemoryBoard) -> None:
    site = Site(board)
    stranger = Wire(msgspec.structs.replace(SCOPE, namespace="another tenant"))
    (addition,) = replica().add([key_of(1)], rows(1))
    await board.append([b"", b"x" * 99, b"x" * 9999, stranger.announcement(Announcement(addition, OTHER, 0.0))])
    await announce(board, 2)
    await site.read()
    assert not site.knows(1)
    assert site.knows(2)
    names = ("dropped_malformed", "dropped_overlong", "dropped_foreign")
    assert [site.follower.counters[name] for name in names] == [2, 1, 1]


async def test_a_newcomer_loads_a_snapshot_and_reads_on_from_there(board: MemoryBoard) -> None:
    old = Site(board)
    await announce(board, *range(10))
    await old.read()
    await old.snapshots.keep(old.follower.place, seen=10)
    await announce(board, 10, removed=(3,))
    del board.stream[:7]
    new = Site(board)
    await new.read()
    assert new.knows(0, 1, 2, 4, 9, 10)
    assert not new.knows(3)
    assert new.follower.counters["snapshots_loaded"] == 1
    assert new.follower.counters["gaps"] == 0
    assert new.snapshots.counters["restored"] == 10


async def test_a_newcomer_without_a_snapshot_reads_what_there_is(board: MemoryBoard) -> None:
    await announce(board, *range(10))
    del board.stream[:3]
    new = Site(board)
    await new.read(count=2)
    assert len(new.copy) == 7
    assert new.follower.counters["gaps"] == 0


async def test_who_was_overtaken_takes_the_snapshot(board: MemoryBoard) -> None:
    late, prompt = Site(board), Site(board)
    await announce(board, 0)
    await late.read()
    late.copy.add([key_of("its own")], rows(1, seed=9))
    board.stream_entries = 5
    for i in range(1, 20):
        await announce(board, i)
        await prompt.read()
    await prompt.snapshots.keep(prompt.follower.place, seen=20)
    await announce(board, 20)
    await late.read(count=3)
    assert late.knows(*range(21), "its own")
    assert [late.follower.counters[name] for name in ("gaps", "resyncs", "gaps_left")] == [1, 1, 0]


async def test_who_was_overtaken_without_a_snapshot_goes_on(board: MemoryBoard) -> None:
    late = Site(board)
    await announce(board, 0)
    await late.read()
    board.stream_entries = 5
    await announce(board, *range(1, 20))
    await late.read(count=3)
    assert late.knows(0, *range(15, 20))
    assert len(late.copy) == 6
    assert [late.follower.counters[name] for name in ("gaps", "resyncs", "gaps_left")] == [1, 0, 1]


async def test_who_reads_in_time_sees_no_gap(board: MemoryBoard) -> None:
    site = Site(board)
    board.stream_entries = 5
    for i in range(30):
        await announce(board, i)
        site.follower.doubt()
        await site.read(count=3)
    assert site.knows(*range(30))
    assert site.follower.counters["gaps"] == 0


async def test_a_board_that_comes_back_empty_is_read_from_its_beginning(board: MemoryBoard) -> None:
    site = Site(board)
    await announce(board, 1, 2, 3)
    await site.read()
    board.restart()
    await announce(board, 4)
    await site.read()
    assert site.knows(1, 2, 3, 4)
    assert site.follower.counters["restarts"] == 1


async def test_a_snapshot_is_made_anew_on_a_board_that_came_back_empty(board: MemoryBoard) -> None:
    site = Site(board)
    await announce(board, 1, 2, 3)
    await site.read()
    await site.snapshots.keep(site.follower.place, seen=3)
    board.restart()
    await site.read()
    await site.snapshots.keep(site.follower.place, seen=3)
    new = Site(board)
    await new.read()
    assert new.knows(1, 2, 3)


@pytest.mark.parametrize(("every", "written"), [(1, 30), (8, 5), (1000, 4)])
async def test_snapshots_are_written_when_they_are_due(board: MemoryBoard, every: int, written: int) -> None:
    site = Site(board, every=every)
    for i in range(30):
        await announce(board, i)
        await site.read()
        await site.snapshots.keep(site.follower.place, seen=i + 1)
        board.blobs.pop("lease", None)
    assert site.snapshots.counters["written"] == written
    # The chunks of the last one, its manifest, and those of none before it.
    (manifest,) = (WIRE.read_manifest(data) for name, data in board.blobs.items() if name == "manifest")
    assert isinstance(manifest, Manifest)
    assert len(board.blobs) == manifest.chunks + 1


async def test_who_knows_far_more_than_the_snapshot_writes_another(board: MemoryBoard) -> None:
    newcomer, old = Site(board), Site(board)
    await announce(board, *range(10))
    await old.read()
    board.restart()
    await announce(board, 10)
    await newcomer.read()
    await newcomer.snapshots.keep(newcomer.follower.place, seen=1)
    board.blobs.pop("lease")
    await old.read()
    await old.snapshots.keep(old.follower.place, seen=11)
    new = Site(board)
    await new.read()
    assert new.knows(*range(11))


async def test_one_writes_at_a_time_and_the_others_know(board: MemoryBoard) -> None:
    sites = [Site(board, every=5) for _ in range(4)]
    await announce(board, *range(9))
    for site in sites:
        await site.read()
    await asyncio.gather(*(site.snapshots.keep(site.follower.place, seen=9) for site in sites))
    assert sum(site.snapshots.counters["written"] for site in sites) == 1
    board.blobs.pop("lease")
    for site in sites:
        await site.snapshots.keep(site.follower.place, seen=9)
    assert sum(site.snapshots.counters["written"] for site in sites) == 1


async def test_who_knows_nothing_writes_nothing(board: MemoryBoard) -> None:
    site = Site(board)
    await site.snapshots.keep(START, seen=0)
    assert board.blobs == {}


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flip(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


@pytest.mark.parametrize("damage", [_cut, _flip])
async def test_a_damaged_chunk_costs_its_own_entries(board: MemoryBoard, damage: Callable[[bytes], bytes]) -> None:
    old = Site(board)
    await announce(board, *range(10))
    await old.read()
    await old.snapshots.keep(old.follower.place, seen=10)
    (name,) = (name for name in board.blobs if name.endswith(":1"))
    board.blobs[name] = damage(board.blobs[name])
    (lost,) = (name for name in board.blobs if name.endswith(":2"))
    del board.blobs[lost]
    board.stream.clear()
    new = Site(board)
    await new.read()
    assert len(new.copy) == 4
    assert new.snapshots.counters["chunks_corrupted"] == new.snapshots.counters["chunks_missing"] == 1


@pytest.mark.parametrize(
    "manifest",
    [b"", b"rubbish", WIRE.manifest(Manifest(b"nothing.", (9, 9), 2**32 - 1, 5)), WIRE.chunk([])],
)
async def test_a_manifest_that_is_none_is_no_snapshot(board: MemoryBoard, manifest: bytes) -> None:
    board.blobs["manifest"] = manifest
    await announce(board, 1)
    site = Site(board)
    await site.read()
    assert site.knows(1)


async def test_a_manifest_that_is_ahead_of_the_stream_does_not_deafen(board: MemoryBoard) -> None:
    board.blobs["manifest"] = WIRE.manifest(Manifest(b"nothing.", (2**63, 0), 0, 0))
    await announce(board, 1)
    site = Site(board)
    await site.read()
    await site.read()
    assert site.knows(1)


class Fleet:
    """Instances that run in the background, around one board."""

    def __init__(self) -> None:
        self.board = MemoryBoard()
        self.clock = ManualClock()
        self.instances: list[tuple[Federation, IndexReplica]] = []

    def join(self, options: FederationOptions | None = None) -> tuple[Federation, IndexReplica]:
        copy = replica()
        instance = federation(self.board, copy, options, clock=self.clock)
        instance.start()
        self.instances.append((instance, copy))
        return instance, copy


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    yield fleet
    for instance, _ in fleet.instances:
        await instance.close()


async def test_what_one_announces_all_others_know(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.join()
    (first, copy), *others = fleet.instances
    first.announce(copy.add([key_of(1), key_of(2)], rows(2)))
    first.announce(removed=[key_of(2)])
    await until(lambda: all(len(other) == 1 and key_of(1) in other for _, other in others))
    assert first.state() == "ok"
    assert first.statistics()["announced"] == 3


async def test_trouble_costs_neither_time_nor_more_than_the_queue_holds(fleet: Fleet) -> None:
    one, copy = fleet.join(FederationOptions(queue_entries=4, batch_entries=1))
    _, other = fleet.join()
    await one.caught_up()
    fleet.board.trouble = ConnectionError("gone")
    one.announce(copy.add([key_of("first")], rows(1)))
    await until(lambda: "gone" in one.state())
    calls = fleet.board.calls
    one.announce(copy.add([key_of(i) for i in range(10)], rows(10)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert fleet.board.calls - calls <= 4, "nobody asks what has just failed"
    assert one.statistics()["outbox_dropped"] == 6
    fleet.board.trouble = None
    fleet.clock.advance(60)
    late = fleet.instances[1][0]
    assert late.statistics()["behind_s"] == 60.0
    await until(lambda: len(other) == 5)
    assert [key_of(name) in other for name in ("first", 0, 6, 9)] == [True, False, True, True]
    await until(lambda: one.state() == "ok")
    assert (late.statistics()["behind_s"], late.statistics()["peers"]) == (0.0, 1.0)


async def test_closing_sends_what_waits(fleet: Fleet) -> None:
    one, copy = fleet.join()
    one.announce(copy.add([key_of(1)], rows(1)))
    await one.close()
    await one.close()
    assert len(fleet.board.stream) == 1


async def test_a_bug_in_a_replica_is_heard_of(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(IndexReplica):
        def fold(self, added: object, removed: object) -> int:
            raise LookupError("a bug")

    board = MemoryBoard()
    await announce(board, 1)
    instance = federation(board, Broken(replica().index, "int8", 10))
    instance.start()
    await until(lambda: "a bug" in instance.state())
    await instance.close()
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    "options", [{"queue_entries": 0}, {"wait_s": -1.0}, {"note_bytes": 70_000}, {"secret": bytes(65)}], ids=str
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        msgspec.structs.replace(FederationOptions(), **options)


def test_options_of_snapshots_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError):
        SnapshotOptions(every=0)


async def test_a_library_that_swallows_a_cancellation_does_not_hold_up_the_end(fleet: Fleet) -> None:
    """As ``asyncio.wait_for`` of Python 3.11 may."""

    class Deaf(MemoryBoard):
        reads = told = 0

        async def read(self, after: StreamId, count: int, wait_s: float) -> list[tuple[StreamId, bytes]]:
            self.reads += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.told += 1
                if self.told > 1:
                    raise
            return []

    board = fleet.board = Deaf()
    one, _ = fleet.join()
    await until(lambda: board.reads == 1)
    await one.close()
    assert (board.reads, board.told) == (2, 2)


async def test_what_was_removed_is_told_again_where_the_stream_was_lost() -> None:
    """Not all may have read it. When it was removed does not change by that."""
    board, clock = MemoryBoard(), ManualClock(1000.0)
    one = federation(board, replica(), clock=clock)
    one.start()
    one.announce(removed=[key_of(1)])
    await until(lambda: one.place == board.stream[-1][0] if board.stream else False)
    clock.advance(100.0)
    board.restart()
    await until(lambda: bool(board.stream))
    (told,) = [one.wire.read_announcement(data) for _, data in board.stream]
    assert isinstance(told, Announcement)
    assert (told.what, told.wall_s) == (key_of(1), 1000.0)
    await one.close()


async def test_what_lasts_is_told_again_however_much_was_removed_since() -> None:
    board, clock = MemoryBoard(stream_entries=10_000), ManualClock(1000.0)
    one = federation(board, replica(), clock=clock)
    one.start()
    one.announce_lasting(key_of("outdated"), 1.0)
    one.announce_lasting(key_of("lasting"), 2.0)
    for start in range(0, 5000, 1000):
        one.announce(removed=[key_of(number) for number in range(start, start + 1000)])
    await until(lambda: len(board.stream) == 5002 and one.place == board.stream[-1][0])
    board.restart()
    await until(lambda: len(board.stream) == 4097)
    told = [one.wire.read_announcement(data) for _, data in board.stream]
    assert Announcement(key_of("lasting"), one.instance, 2.0) in told
    await one.close()
