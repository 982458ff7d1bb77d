"""Whatever lies on the board, an instance drops it or is right; however announcements come, instances agree."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.caching.federated_cache import CacheOptions, FederatedCache
from tandem.caching.federated_follower import Follower
from tandem.caching.federated_snapshot import SnapshotOptions, Snapshots
from tandem.caching.federated_wire import Addition, Announcement, Fault, Manifest, Wire
from tandem.clock import ManualClock
from tests.federated_board import DIMS, SCOPE, MemoryBoard, MemoryValues, federation, key_of, replica, rows

WIRE = Wire(SCOPE, note_bytes=64)
ADDITIONS = replica().add([key_of(i) for i in range(20)], rows(20), [b"note %d" % i for i in range(20)])
FRAMES = [WIRE.announcement(Announcement(one, b"somebody", 0.0)) for one in ADDITIONS]
FRAMES += [WIRE.announcement(Announcement(one.key, b"somebody", 0.0)) for one in ADDITIONS]
FRAMES += [WIRE.chunk(ADDITIONS[:3]), WIRE.manifest(Manifest(b"snapshot", (1, 0), 1, 3)), WIRE.value(key_of(1), b"v")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame of ours after an accident: cut, lengthened, or with bytes changed."""
    frame = bytearray(draw(st.sampled_from(FRAMES)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(frame) - 1)) if frame else 0
        what = draw(st.sampled_from(["cut", "more", "change"]))
        if what == "cut":
            del frame[place:]
        elif what == "more":
            frame += draw(st.binary(min_size=1, max_size=20))
        elif frame:
            frame[place] ^= draw(st.integers(1, 255))
    return bytes(frame)


rubbish = st.one_of(st.binary(max_size=300), damaged())


@given(rubbish)
def test_rubbish_is_never_read_as_anything(data: bytes) -> None:
    if data in FRAMES:
        return
    assert isinstance(WIRE.read_announcement(data), Fault)
    assert isinstance(WIRE.read_chunk(data, 10_000), Fault)
    assert isinstance(WIRE.read_manifest(data), Fault)
    assert isinstance(WIRE.read_value(key_of(1), data, 10_000), Fault)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(min_size=DIMS, max_size=DIMS), st.binary(max_size=9))))
def test_signatures_of_any_bytes_are_folded_or_refused(made: list[tuple[bytes, bytes, bytes]]) -> None:
    copy = replica(capacity=5)
    additions = {key_of(key): Addition(key_of(key), signature, note) for key, signature, note in made}
    refused = copy.fold(list(additions.values()), [])
    assert refused == sum(not any(one.signature) for one in additions.values())
    assert len(copy) == len(copy.index) == min(len(additions) - refused, 5)
    copy.search(rows(1)[0], 4, -1.0)


@given(st.lists(rubbish, max_size=12), st.lists(rubbish, max_size=3), st.integers(1, 5))
def test_rubbish_on_the_board_hides_nothing(stream: list[bytes], blobs: list[bytes], count: int) -> None:
    board = MemoryBoard()
    names = ["manifest", "chunk:" + b"snapshot".hex() + ":0", "lease"]
    board.blobs = dict(zip(names, blobs, strict=False))
    copy = replica()
    snapshots = Snapshots(board, WIRE, copy, SnapshotOptions())
    follower = Follower(board, WIRE, copy, snapshots, b"this one")

    async def run() -> None:
        await board.append(stream)
        await board.append(FRAMES[:2])
        for _ in range(len(stream) + 6):
            await follower.step(count, 0.0)

    asyncio.run(run())
    assert key_of(0) in copy
    assert key_of(1) in copy


steps = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30)


@given(steps, st.data())
def test_instances_agree_however_the_stream_is_cut_up_and_doubled(
    history: list[tuple[bool, int]], data: st.DataObject
) -> None:
    """Each announcement may be on the board twice in a row (a sender does not know whether it arrived)."""
    frames = [FRAMES[i if adds else 20 + i] for adds, i in history]
    doubled = [frame for frame in frames for _ in range(data.draw(st.integers(1, 2)))]
    counts = data.draw(st.lists(st.integers(1, 7), min_size=2, max_size=2))

    async def keys(count: int) -> set[bytes]:
        board, copy = MemoryBoard(), replica()
        follower = Follower(board, WIRE, copy, Snapshots(board, WIRE, copy, SnapshotOptions()), b"this one")
        for start in range(0, len(doubled), 3):
            await board.append(doubled[start : start + 3])
            await follower.step(count, 0.0)
        for _ in range(len(doubled) + 2):
            await follower.step(count, 0.0)
        return {addition.key for addition in copy.contents(100)}

    last = {i: adds for adds, i in history}
    expected = {key_of(i) for i, adds in last.items() if adds}
    assert all(asyncio.run(keys(count)) == expected for count in counts)


@given(st.permutations(range(40)), st.integers(1, 9))
def test_in_any_order_nothing_is_found_that_was_never_stored(order: list[int], count: int) -> None:
    """Out of order, an entry may be missing or there too long: what is there too long has no value, and is a miss."""
    values = MemoryValues()
    values.kept = {one.key: b"value" for one in ADDITIONS[:10]}

    async def run() -> None:
        board, copy = MemoryBoard(), replica()
        cache = FederatedCache(federation(board, copy), copy, values, CacheOptions(), ManualClock())
        follower = Follower(board, WIRE, copy, Snapshots(board, WIRE, copy, SnapshotOptions()), b"this one")
        await board.append([FRAMES[i] for i in order])
        for _ in range(45):
            await follower.step(count, 0.0)
        for i in range(20):
            hit = await cache.lookup(rows(20)[i], 0.99)
            assert hit is None or (hit.key == key_of(i) and i < 10)

    asyncio.run(run())


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["announce", "trouble", "calm", "restart", "trim", "snapshot", "read"]), max_size=40))
def test_whatever_happens_to_the_board_what_comes_after_arrives(events: list[str]) -> None:
    board, copies = MemoryBoard(), [replica(), replica()]
    snapshots = [Snapshots(board, WIRE, copy, SnapshotOptions(every=1, chunk_entries=2)) for copy in copies]
    followers = [
        Follower(board, WIRE, copy, snapshot, name)
        for copy, snapshot, name in zip(copies, snapshots, (b"11111111", b"22222222"), strict=True)
    ]

    async def event(name: str, number: int) -> None:
        if name == "announce":
            await board.append([FRAMES[number % 40]])
        elif name == "trouble":
            board.trouble = ConnectionError("gone")
        elif name == "calm":
            board.trouble = None
        elif name == "restart":
            board.restart()
        elif name == "trim":
            del board.stream[:2]
        elif name == "snapshot":
            await snapshots[number % 2].keep(followers[number % 2].place, number)
        else:
            await followers[number % 2].step(3, 0.0)

    async def run() -> None:
        for number, name in enumerate(events):
            try:
                await event(name, number)
            except ConnectionError:
                followers[0].doubt()
                followers[1].doubt()
        board.trouble = None
        await board.append([FRAMES[19]])
        for follower in followers:
            for _ in range(50):
                await follower.step(3, 0.0)

    asyncio.run(run())
    assert all(key_of(19) in copy for copy in copies)
