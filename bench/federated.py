"""Hit rates of a federated cache, beside one shared cache, isolated instances and routing to owners.

Run from the repository: ``python -m bench.federated --set banking77``. Real texts and their real vectors; instances in
one process, each with a client of its own, around one real Redis; requests spread over the instances in turn, in real
time. A request is a hit if an entry with a cosine of at least ``--bound`` is found and its value can be had; on a miss
the text is stored. Two streams: every text once (hits are near-duplicates), and Zipf (hits are mostly repeats).

These are hit rates and no times. They could mislead in that nothing is ever evicted; that ``shared`` costs nothing to
ask here; and that announcements are read within milliseconds on one machine, for which the run with a lag is there.
Fails when a value comes back for another text than its own.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from redis.asyncio import Redis

from tandem.bench.conditions import conditions
from tandem.bench.texts import data_folder
from tandem.caching.base import Key
from tandem.caching.federated import Federation, FederationOptions
from tandem.caching.federated_board import BoardOptions, RedisBoard, View, connect
from tandem.caching.federated_cache import CacheOptions, FederatedCache
from tandem.caching.federated_replica import IndexReplica
from tandem.caching.federated_snapshot import SnapshotOptions
from tandem.caching.federated_values import RedisValues, ValuesOptions
from tandem.caching.federated_wire import START, Announcement, Scope, StreamId, Wire
from tandem.clock import SystemClock
from tandem.types import Rows
from tandem.vectors.base import IndexOptions
from tandem.vectors.linear import LinearIndex
from tests.redis_server import RedisServer

LAG_S = 1.0
CLOCK = SystemClock()


class Tally:
    """Who got how many requests, and how many of them were hits."""

    def __init__(self, instances: int) -> None:
        self.requests, self.misses = np.zeros(instances, int), np.zeros(instances, int)
        self.hits: list[bool] = []

    def count(self, instance: int, hit: bool) -> None:
        self.requests[instance] += 1
        self.misses[instance] += not hit
        self.hits.append(hit)

    def rate(self, start: float = 0.0, stop: float = 1.0) -> float:
        n = len(self.hits)
        return float(np.mean(self.hits[int(start * n) : int(stop * n)]))

    def imbalance(self) -> tuple[float, float]:
        """Largest over mean: of requests, and of misses, which are what the model has to compute."""
        return float(self.requests.max() / self.requests.mean()), float(self.misses.max() / max(self.misses.mean(), 1))


def empty(dims: int) -> IndexReplica:
    return IndexReplica(LinearIndex(IndexOptions(dims=dims, storage="int8")), "int8", 1_000_000)


def local(
    rows: Rows, keys: list[Key], stream: Sequence[int], owners: Sequence[int], bound: float, emptied: float = 2.0
) -> Tally:
    """Instances that know nothing of each other; request i goes to ``owners[i]``. The first is replaced by an empty one
    after the share ``emptied`` of the requests."""
    replicas = [empty(rows.shape[1]) for _ in range(max(owners) + 1)]
    tally = Tally(len(replicas))
    for number, (text, owner) in enumerate(zip(stream, owners, strict=True)):
        if number == int(emptied * len(stream)):
            replicas[0] = empty(rows.shape[1])
        hit = bool(replicas[owner].search(rows[text], 1, bound))
        tally.count(owner, hit)
        if not hit:
            replicas[owner].add([keys[text]], rows[text : text + 1])
    return tally


def rendezvous(names: Sequence[bytes], instances: int) -> list[int]:
    """The owner of each name: whose hash together with it is the largest (Thaler and Ravishankar, 1998)."""

    def owner(name: bytes) -> int:
        weights = [hashlib.blake2b(name, salt=b"%d" % i, digest_size=8).digest() for i in range(instances)]
        return weights.index(max(weights))

    known = {name: owner(name) for name in set(names)}
    return [known[name] for name in names]


def planes(rows: Rows, bits: int) -> list[bytes]:
    """On which side of random planes each row lies (Charikar, STOC 2002); near rows mostly lie alike."""
    sides = rows @ np.random.default_rng(1).normal(size=(rows.shape[1], bits)).astype(np.float32) > 0
    return [row.tobytes() for row in np.packbits(sides, axis=1)]


class BadLine:
    """An instance's way to Redis: cut off, or late. Stands before its board and before its values."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.cut = False
        self.late_s = 0.0

    def _pass(self) -> Any:
        if self.cut:
            raise ConnectionError("cut off")
        return self.inner

    async def append(self, entries: Sequence[bytes]) -> None:
        await self._pass().append(entries)

    async def read(self, after: StreamId, count: int, wait_s: float) -> list[tuple[StreamId, bytes]]:
        entries = await self._pass().read(after, count, wait_s)
        if self.late_s:
            due = (time.time() - self.late_s) * 1000
            old = [entry for entry in entries if entry[0][0] <= due]
            await asyncio.sleep(0 if old else 0.01)
            return old
        return list(entries)

    async def view(self, place: StreamId) -> View:
        view: View = await self._pass().view(place)
        return view

    async def expire(self, names: Sequence[str], expire_s: float) -> None:
        await self._pass().expire(names, expire_s)

    async def claim(self, name: str, holder: bytes, expire_s: float) -> bool:
        return bool(await self._pass().claim(name, holder, expire_s))

    async def get(self, names: Any) -> Any:
        return await self._pass().get(names)

    async def put(self, *what: Any) -> None:
        await self._pass().put(*what)

    async def delete(self, keys: Sequence[Key]) -> None:
        await self._pass().delete(keys)

    async def close(self) -> None:
        await self.inner.close()


class Instance:
    """One federated instance."""

    def __init__(self, url: str, dims: int) -> None:
        scope = Scope(model="bench", namespace="bench", codec="int8", signature_bytes=dims)
        self.client: Redis = connect(url)
        self.board = BadLine(RedisBoard(self.client, scope.id(), BoardOptions()))
        snapshots = SnapshotOptions(every=500, look_s=0.2, lease_s=1.0)
        options = FederationOptions(drain_s=0.0, snapshots=snapshots)
        replica = empty(dims)
        self.federation = Federation(self.board, scope, replica, options, CLOCK)
        self.values = BadLine(RedisValues(self.client, self.federation.wire, ValuesOptions(deadline_s=0.5), CLOCK))
        self.cache: FederatedCache[bytes] = FederatedCache(self.federation, replica, self.values, CacheOptions(), CLOCK)
        self.cache.start()

    def cut(self, cut: bool) -> None:
        self.board.cut = self.values.cut = cut

    async def close(self) -> None:
        await self.cache.close()
        await self.client.aclose()


class Fleet:
    """Federated instances, and what is done to them on the way."""

    def __init__(self, url: str, dims: int, instances: int) -> None:
        self._url, self._dims = url, dims
        self.all = [Instance(url, dims) for _ in range(instances)]
        self.serving = list(range(instances))
        self.wrong = self.under = 0
        self.rate = 0.0
        """Requests a second, as it turned out."""

    async def kill(self) -> None:
        """The first ends without a word; the others get its requests."""
        self.serving.remove(0)
        await self.all[0].close()

    async def replace(self) -> None:
        self.all[0] = Instance(self._url, self._dims)
        await self.all[0].federation.caught_up()
        self.serving.insert(0, 0)

    async def close(self) -> None:
        for instance in self.all:
            await instance.close()


Events = Mapping[float, Callable[[Fleet], Any]]
FAULTS: dict[str, Events] = {
    "none": {},
    "first killed at 1/2, replaced at 3/4": {0.5: Fleet.kill, 0.75: Fleet.replace},
    f"first lags by {LAG_S:g} s": {0.0: lambda fleet: setattr(fleet.all[0].board, "late_s", LAG_S)},
    "first cut off from 1/3 to 2/3": {
        1 / 3: lambda fleet: fleet.all[0].cut(True),
        2 / 3: lambda f: f.all[0].cut(False),
    },
}


async def federated(
    fleet: Fleet, rows: Rows, keys: list[Key], stream: Sequence[int], bound: float, rate: float, events: Events
) -> Tally:
    """Requests at ``rate`` a second, in turn to those who serve."""
    tally, texts = Tally(len(fleet.all)), {key: text for text, key in enumerate(keys)}
    due_events = sorted((int(share * len(stream)), event) for share, event in events.items())
    await asyncio.gather(*(instance.federation.caught_up() for instance in fleet.all))
    started_s = CLOCK.now()
    for number, text in enumerate(stream):
        while due_events and due_events[0][0] <= number:
            done = due_events.pop(0)[1](fleet)
            if asyncio.iscoroutine(done):
                await done
        await asyncio.sleep(max(started_s + number / rate - CLOCK.now(), 0))
        instance = fleet.serving[number % len(fleet.serving)]
        hit = await fleet.all[instance].cache.lookup(rows[text], bound)
        tally.count(instance, hit is not None)
        if hit is None:
            fleet.all[instance].cache.store(keys[text], rows[text], b"%d" % text)
        else:
            fleet.wrong += hit.value != b"%d" % texts[hit.key]
            fleet.under += float(rows[texts[hit.key]] @ rows[text]) < bound
    fleet.rate = len(stream) / (CLOCK.now() - started_s)
    return tally


async def traffic(client: Redis) -> tuple[int, int]:
    found = await client.info("stats")
    return found["total_net_input_bytes"], found["total_net_output_bytes"]


def streams(texts: int, requests: int) -> dict[str, list[int]]:
    rng = np.random.default_rng(0)
    order = rng.permutation(texts)
    weights = 1 / np.arange(1, texts + 1)
    zipf = order[rng.choice(texts, requests, p=weights / weights.sum())]
    return {"unique": order[:requests].tolist(), "zipf": zipf.tolist()}


def real_texts(name: str) -> list[str]:
    folder = data_folder(None)
    if folder is None:
        raise SystemExit("no data: name a folder in TANDEM_DATA, or give --texts and --rows")
    if name == "banking77":
        with (folder / name / "train.csv").open(encoding="utf-8", newline="") as file:
            return list(dict.fromkeys(row["text"].strip() for row in csv.DictReader(file)))
    if name == "clinc150":
        found = json.loads((folder / name / "train_val.json").read_text(encoding="utf-8"))
        return list(dict.fromkeys(text for text, _ in [*found["train"], *found["val"]]))
    with gzip.open(folder / "qqp" / "qqp_tune.tsv.gz", "rt", encoding="utf-8") as file:
        pairs = csv.DictReader(file, delimiter="\t")
        return list(dict.fromkeys(text for pair in pairs for text in (pair["text_a"], pair["text_b"])))


def vectors(texts: list[str], path: str | None) -> Rows:
    if path is not None:
        rows = np.load(path).astype(np.float32)
    else:
        from tandem import Embedder

        with Embedder() as embedder:
            rows = embedder.embed(texts)
    if len(rows) != len(texts):
        raise SystemExit(f"{len(rows)} rows for {len(texts)} texts")
    unit: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def line(name: str, tally: Tally, shared: Tally, isolated: Tally, more: str = "") -> str:
    of_requests, of_misses = tally.imbalance()
    gain = tally.rate() / max(isolated.rate(), 1e-9) - 1
    shares = "".join(f"{100 * share:9.2f} %" for share in (tally.rate(), tally.rate() / shared.rate(), gain))
    return f"  {name:<42}{shares}{100 * tally.rate(0.5):9.2f} %{of_requests:11.2f}{of_misses:11.2f}  {more}"


async def race(arguments: argparse.Namespace, rows: Rows, keys: list[Key], url: str) -> int:
    wrong = 0
    bound = arguments.bound
    for name, stream in streams(len(rows), arguments.requests).items():
        shared = local(rows, keys, stream, [0] * len(stream), bound)
        print(f"\n{name}: {len(stream)} requests, one shared cache hits {100 * shared.rate():.2f} %")
        heads = "".join(
            f"{head:>11}" for head in ("hit rate", "of shared", "isolated", "2nd half", "requests", "misses")
        )
        print(f"  {'':<42}{heads}")
        for count in arguments.instances:
            turns = [i % count for i in range(len(stream))]
            isolated = local(rows, keys, stream, turns, bound)
            print(line(f"{count} isolated", isolated, shared, isolated))
            ways = {"text": rendezvous([keys[text] for text in stream], count)}
            for bits in (4, 8):
                sides = planes(rows, bits)
                ways[f"{bits} random planes"] = rendezvous([sides[text] for text in stream], count)
            for way, owners in ways.items():
                print(line(f"{count} routed by {way}", local(rows, keys, stream, owners, bound), shared, isolated))
            if count == 4:
                for way, owners in (("isolated", turns), ("routed by text", ways["text"])):
                    again = local(rows, keys, stream, owners, bound, emptied=0.5)
                    print(line(f"{count} {way}, first emptied at 1/2", again, shared, isolated))
            for fault, events in FAULTS.items():
                if events and (count != 4):
                    continue
                wrong += await _federated_line(arguments, (rows, keys, stream), url, (count, fault), (shared, isolated))
    return wrong


async def _federated_line(
    arguments: argparse.Namespace,
    data: tuple[Rows, list[Key], Sequence[int]],
    url: str,
    case: tuple[int, str],
    others: tuple[Tally, Tally],
) -> int:
    rows, keys, stream = data
    count, fault = case
    async with connect(url) as client:
        await client.flushall()
    fleet = Fleet(url, rows.shape[1], count)
    tally = await federated(fleet, rows, keys, stream, arguments.bound, arguments.rate, FAULTS[fault])
    await fleet.close()
    more = f"{fleet.rate:.0f} requests/s; {fleet.under} hits are under the bound in float32"
    label = f"{count} federated" + (f", {fault}" if fault != "none" else "")
    print(line(label, tally, *others, more), flush=True)
    return fleet.wrong


async def wire_bytes(rows: Rows, url: str) -> None:
    """What an announcement costs on the wire, as Redis counts it: one by one, and 64 at once."""
    scope = Scope(model="bench", namespace="bytes", codec="int8", signature_bytes=rows.shape[1])
    wire = Wire(scope)
    names = [hashlib.blake2b(b"%d" % i, digest_size=16).digest() for i in range(64)]
    additions = empty(rows.shape[1]).add(names, rows[:64])
    frames = [wire.announcement(Announcement(one, b"instance", CLOCK.wall())) for one in additions]
    async with connect(url) as client:
        board = RedisBoard(client, scope.id(), BoardOptions())
        for batch in (1, 64):
            place = (await board.view(START)).last
            await traffic(client)
            # To ask for the counters is counted, too: the first two questions in a row tell how much.
            counts = [await traffic(client), await traffic(client)]
            await board.append(frames[:batch])
            counts.append(await traffic(client))
            await board.read(place, batch, 0.01)
            counts.append(await traffic(client))
            steps = np.diff(counts, axis=0)
            (written, answered), (asked, got) = (steps[1:] - steps[0]) / batch
            print(
                f"an announcement, {batch:>2} at once: frame {len(frames[0])} B; written {written:.0f} B,"
                f" answered {answered:.0f} B; each reader asks {asked:.0f} B and gets {got:.0f} B"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="banking77", choices=["banking77", "clinc150", "qqp"])
    parser.add_argument("--texts", help="a JSON list of texts, instead of --set")
    parser.add_argument("--rows", help="their vectors as .npy [n, d]; otherwise they are computed")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=250.0, help="requests a second")
    parser.add_argument("--bound", type=float, default=0.95)
    parser.add_argument("--instances", type=int, nargs="+", default=[2, 4, 8])
    arguments = parser.parse_args()
    named = arguments.texts and json.loads(Path(arguments.texts).read_text(encoding="utf-8"))
    texts: list[str] = named or real_texts(arguments.set)
    keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    rows = vectors(texts, arguments.rows)
    workload = {"texts": f"{arguments.texts or arguments.set}, {len(texts)} different ones, {rows.shape[1]} dimensions"}
    workload |= {"bound": f"cosine {arguments.bound}", "rate": f"{arguments.rate:g} requests/s, in turn", "seed": "0"}
    print("\n".join(conditions(workload).lines()))
    with TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        asyncio.run(wire_bytes(rows, server.url))
        wrong = asyncio.run(race(arguments, rows, keys, server.url))
    print(f"\n{wrong} values that belong to another text")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
