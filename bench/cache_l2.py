"""The second level: how long a read takes, what goes over the wire, and what a Redis costs that stops or dies.

Run from the repository: ``python -m bench.cache_l2``. A Redis of its own, on this machine, over TCP; rows are random,
so the JSON of RedisVL's EmbeddingsCache has the digits that real rows have. Bytes are what Redis itself counts for the
same reads (``total_net_input_bytes`` and ``total_net_output_bytes``), keys and protocol included.

Faults: one request every ``1 / --rate`` seconds asks for ``--texts`` rows, whether the last was answered or not, while
Redis is stopped (SIGSTOP), goes on, is killed, and is started again, empty. What a request pays is its time over the
median of the calm before. It could mislead in that nothing else runs in the process: a loaded event loop adds to all.

Fails on a wrong row or on a request that failed; never on slowness.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from redis import Redis

from tandem.bench.conditions import conditions
from tandem.bench.report import Check, Report, at_least, at_most, shown
from tandem.bench.stats import summarize
from tandem.caching.base import Entry, Key
from tandem.caching.disk import DiskOptions, disk_store
from tandem.caching.record import Records
from tandem.caching.redis import RedisOptions, redis_store
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tandem.quantization import ROW_CODECS
from tandem.types import Rows, Tier
from tests.redis_server import RedisServer

READ = 64
CODECS = ("float32", "int16", "int8")
MODEL = b"bench---"


class Bench:
    """What all parts share: rows and their keys, a Redis, a report."""

    def __init__(self, options: argparse.Namespace, server: RedisServer, url: str, report: Report) -> None:
        chance = np.random.default_rng(options.seed)
        self.options, self.server, self.url, self.report = options, server, url, report
        self.rows: Rows = chance.normal(scale=0.05, size=(options.rows, options.dims)).astype(np.float32)
        self.keys: list[Key] = [chance.bytes(16) for _ in range(options.rows)]
        self.entries = [Entry(row=row, tokens=number, tier=Tier.FP32) for number, row in enumerate(self.rows)]
        self.starts = chance.integers(0, options.rows - READ, options.reads).tolist()

    def redis(self, codec: str) -> SecondLevel:
        return redis_store(RedisOptions(url=self.url), self.records(codec), SystemClock())

    def records(self, codec: str) -> Records:
        return Records(MODEL, self.options.dims, ROW_CODECS.get(codec)())

    async def fill(self, store: SecondLevel) -> None:
        await store.ready()
        for start in range(0, len(self.keys), 1000):
            await store.put(self.keys[start : start + 1000], self.entries[start : start + 1000])
            await store.flush()

    def check(self, name: str, start: int, found: list[Entry | None]) -> None:
        """Each row that was found is its own: as near as its codec allows."""
        for number, entry in enumerate(found, start):
            if entry is not None:
                cosine = float(entry.row @ self.rows[number]) / float(
                    np.linalg.norm(entry.row) * np.linalg.norm(self.rows[number])
                )
                if entry.tokens != number or cosine < 0.9995:
                    self.report.problems.append(f"{name}: the row of another text, or a wrong one")


async def reads(bench: Bench, name: str, store: SecondLevel) -> None:
    """Reads of 64 rows, one after the other."""
    await bench.fill(store)
    times, found_all = [], 0
    for start in bench.starts:
        began = time.perf_counter()
        found = await store.get(bench.keys[start : start + READ])
        times.append(time.perf_counter() - began)
        found_all += sum(entry is not None for entry in found)
    bench.check(name, bench.starts[-1], found)
    bench.report.checks.append(Check(f"{name}: share found", found_all / (READ * len(bench.starts)), 0.999))
    p50, p99 = (1000 * float(value) for value in np.quantile(times, (0.5, 0.99)))
    bench.report.figures.append(shown(f"{name}: read of {READ} rows, p50", p50, " ms", 3))
    bench.report.figures.append(at_most(f"{name}: read of {READ} rows, p99", 3, p99, " ms", 3))


def wire_bytes(client: Redis) -> int:
    facts = client.info("stats")
    return int(facts["total_net_input_bytes"]) + int(facts["total_net_output_bytes"])


async def wire(bench: Bench) -> None:
    """Bytes of the same reads of 64 rows, by ours and by RedisVL's EmbeddingsCache."""
    from redisvl.extensions.cache.embeddings import EmbeddingsCache

    some = bench.starts[: min(100, len(bench.starts))]
    used: dict[str, float] = {}
    with Redis.from_url(bench.url) as client:
        for codec in CODECS:
            store = bench.redis(codec)
            await bench.fill(store)
            before = wire_bytes(client)
            for start in some:
                await store.get(bench.keys[start : start + READ])
            used[codec] = (wire_bytes(client) - before) / (READ * len(some))
            await store.close()
        peer = EmbeddingsCache(redis_client=client, ttl=3600)
        texts = [f"a question of the usual length about the number {number}" for number in range(len(bench.rows))]
        items = zip(texts, bench.rows.tolist(), strict=True)
        peer.mset([{"content": text, "model_name": "all-MiniLM-L6-v2", "embedding": row} for text, row in items])
        before, times = wire_bytes(client), []
        for start in some:
            began = time.perf_counter()
            found = peer.mget(texts[start : start + READ], "all-MiniLM-L6-v2")
            times.append(time.perf_counter() - began)
        used["RedisVL"] = (wire_bytes(client) - before) / (READ * len(some))
        if any(item is None for item in found):
            bench.report.problems.append("RedisVL did not find what it was given")
    bench.report.figures.append(shown(f"RedisVL: read of {READ} rows", summarize([1000 * t for t in times]), " ms", 3))
    for name, count in used.items():
        bench.report.figures.append(shown(f"{name}: bytes on the wire for a row read", count, " bytes", 0))
    for codec in CODECS[1:]:
        ratio = used["RedisVL"] / used[codec]
        bench.report.figures.append(at_least(f"{codec}: RedisVL's bytes over ours", 10, ratio, "x"))


async def faults(bench: Bench) -> None:
    """What requests pay while Redis stops, dies and comes back."""
    store = bench.redis("int8")
    await bench.fill(store)
    phases: list[tuple[str, Callable[[], None]]] = [
        ("calm", lambda: None),
        ("stopped", bench.server.suspend),
        ("goes on", bench.server.resume),
        ("killed", bench.server.kill),
        ("restarted", bench.server.start),
    ]
    usual_ms = 0.0
    for name, act in phases:
        acted = asyncio.get_running_loop().run_in_executor(None, act)
        if name != "restarted":
            await acted
        times, failed, hits = await _load(bench, store, name)
        await acted
        if name == "calm":
            usual_ms = float(np.median(times))
        _tell(bench, name, np.maximum(0.0, np.array(times) - usual_ms), failed, hits)
    bench.report.details["redis"] = store.statistics()
    await store.close()


async def _load(bench: Bench, store: SecondLevel, name: str) -> tuple[list[float], int, float]:
    """Milliseconds of each request in order, how many failed, and the share of rows found."""
    options, loop = bench.options, asyncio.get_running_loop()

    async def ask(number: int) -> tuple[float, int]:
        start = bench.starts[number % len(bench.starts)]
        began = time.perf_counter()
        found = await store.get(bench.keys[start : start + options.texts])
        took_ms = 1000 * (time.perf_counter() - began)
        if name == "restarted":
            # As the engine does with what it had to compute.
            await store.put(bench.keys[start : start + options.texts], bench.entries[start : start + options.texts])
        bench.check(name, start, found)
        return took_ms, sum(entry is not None for entry in found)

    began = loop.time()
    tasks = []
    for number in range(int(options.seconds * options.rate)):
        await asyncio.sleep(max(0.0, began + number / options.rate - loop.time()))
        tasks.append(asyncio.create_task(ask(number)))
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    right = [answer for answer in answers if not isinstance(answer, BaseException)]
    hits = sum(found for _, found in right) / (len(answers) * options.texts)
    return [took_ms for took_ms, _ in right], len(answers) - len(right), hits


def _tell(bench: Bench, name: str, extra_ms: np.ndarray, failed: int, hits: float) -> None:
    report = bench.report
    paid = np.flatnonzero(extra_ms > 1.0)
    rest = np.sort(extra_ms)[:-3]
    if failed:
        report.problems.append(f"Redis {name}: {failed} requests failed")
    most = at_most(f"Redis {name}: most that a request paid", 50, float(extra_ms.max()), " ms")
    report.figures += [
        at_most(f"Redis {name}: requests failed of {len(extra_ms) + failed}", 0, float(failed), "", 0),
        shown(f"Redis {name}: share of rows found", hits, "", 3),
    ]
    if name in ("stopped", "killed"):
        report.figures += [
            most,
            at_most(f"Redis {name}: requests that paid over 1 ms", 3, float(len(paid)), "", 0),
            at_most(f"Redis {name}: most but for three", 1, float(rest[-1]), " ms"),
        ]
    else:
        # Here Redis is asked, and what a request pays is how its answers vary.
        report.figures += [most, shown(f"Redis {name}: requests that paid over 1 ms", float(len(paid)), "", 0)]


async def run(bench: Bench) -> None:
    for codec in CODECS:
        store = bench.redis(codec)
        await reads(bench, f"Redis, {codec}", store)
        await store.clear()
        await store.close()
    with TemporaryDirectory() as folder:
        options = DiskOptions(path=Path(folder))
        disk = disk_store(options, bench.records("int8"), SystemClock())
        await reads(bench, "disk, int8", disk)
        await disk.close()
    await wire(bench)
    await faults(bench)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description="The second level of the cache.")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second under faults")
    parser.add_argument("--texts", type=int, default=8, help="rows that a request asks for under faults")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each phase of the faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for the report as JSON")
    options = parser.parse_args()
    port = free_port()
    workload = {"workload": f"{options.rows} rows of {options.dims}, seed {options.seed}, {options.reads} reads"}
    report = Report("second level of the cache", conditions(workload))
    with TemporaryDirectory() as folder, RedisServer(Path(folder), ["--port", str(port)]) as server:
        asyncio.run(run(Bench(options, server, f"redis://127.0.0.1:{port}/0", report)))
    print(report.text())
    if options.out is not None:
        report.write(options.out, "cache_l2")
    return 0 if report.right else 1


if __name__ == "__main__":
    sys.exit(main())
