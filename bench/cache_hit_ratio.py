"""Hit ratios of the L1 cache and of other people's caches, on the same traces, with equal numbers of entries.

    python bench/cache_hit_ratio.py --data DATA_FOLDER [--traces qqp,moon] [--seeds 5] [--json FILE]

Each cell is one trace at one capacity (1, 5 and 10 % of its unique keys) and one scan: none; ``burst``, five times the
capacity of keys that come once, in the middle; ``mixed``, the same keys spread over the middle half. The ratio counts
the trace's own requests. Real repeats: qqp (questions in the order of the pairs), ragpulse (user inputs, passages),
mooncake (blocks). Drawn repeats, seed 7: a Zipf of exponent s over the unique texts of banking77, clinc150 and
search-queries, ten requests a text.

Keys are hashes, and what a cache decides by counts or by a sample may depend on them. So each cell is run with
``--seeds`` different hashes: ratios are medians over them, a lead is that over the best peer with the same keys, and
both the median and the worst of the leads are shown. (cachetools does not look at a hash, and is run once.)

Ends with 1 when a cell is more than one point under the best peer with any of the hashes.

How it can mislead: Zipf draws have no memory, so they favour counting; mooncake's blocks are pieces of prompts, not
texts. moka_py cleans up after every 64 writes and holds up to 64 entries too many until then: it is given 32 fewer,
and where that leaves it nothing it is shown but does not count.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import platform
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cachetools
import numpy as np
from moka_py import Moka
from numpy.typing import NDArray
from theine import Cache as Theine

from tandem.caching.base import Entry
from tandem.caching.l1 import L1Cache, L1Options, slots_of
from tandem.clock import SystemClock
from tandem.errors import ConfigError
from tandem.types import Tier

SEED = 7
SHARES = (0.01, 0.05, 0.1)
SCANS = ("none", "burst", "mixed")
EXPONENTS = (0.8, 0.95, 1.1)
MOKA_LOG = 64
POINT = 0.01

Access = Callable[[bytes], bool]
"""Ask for a key, and put it in if it is not there; whether it was."""


def budget_of(entries: int) -> int:
    """The smallest budget that holds so many rows of one number."""

    def holds(budget: int) -> bool:
        try:
            return slots_of(L1Options(budget_bytes=budget), 1) >= entries
        except ConfigError:
            return False

    return bisect_left(range(1 << 40), True, key=holds)


def tandem(entries: int) -> Access:
    cache = L1Cache(L1Options(budget_bytes=budget_of(entries)), 1, SystemClock())
    if cache.slots != entries:
        raise ValueError(f"{cache.slots} slots where {entries} were wanted")
    kept = [Entry(np.ones(1, np.float32), 1, Tier.FP32)]

    def access(key: bytes) -> bool:
        if cache.get(key) is not None:
            return True
        cache.put([key], kept)
        return False

    return access


def lru(entries: int) -> Access:
    cache: Any = cachetools.LRUCache(entries)

    def access(key: bytes) -> bool:
        if cache.get(key) is not None:
            return True
        cache[key] = 1
        return False

    return access


def theine(entries: int) -> Access:
    cache: Any = Theine(entries)

    def access(key: bytes) -> bool:
        if cache.get(key)[1]:
            return True
        cache.set(key, 1)
        return False

    return access


def moka(entries: int) -> Access:
    cache: Any = Moka(max(1, entries - MOKA_LOG // 2))

    def access(key: bytes) -> bool:
        if cache.get(key) is not None:
            return True
        cache.set(key, 1)
        return False

    return access


CACHES: dict[str, Callable[[int], Access]] = {"tandem": tandem, "cachetools": lru, "theine": theine, "moka": moka}


def traces(data: Path) -> Iterable[tuple[str, Callable[[], NDArray[np.int64]]]]:
    """Each trace's name, and how to make it: numbers of keys from 0."""
    yield "qqp", lambda: numbered(qqp(data))
    for part in ("user_input", "passages_ids"):
        yield f"ragpulse-{part.partition('_')[0]}", lambda part=part: numbered(ragpulse(data, part))
    for name in ("conversation", "synthetic"):
        yield f"mooncake-{name}", lambda name=name: numbered(mooncake(data, name))
    for name, texts in (("banking77", banking77), ("clinc150", clinc150), ("search", search)):
        for s in EXPONENTS:
            yield f"{name}-zipf-{s}", lambda texts=texts, s=s: numbered(zipf(texts(data), s).tolist())


def qqp(data: Path) -> list[str]:
    with gzip.open(data / "qqp" / "qqp_tune.tsv.gz", "rt", encoding="utf-8") as file:
        next(file)
        return [text for line in file for text in line.rstrip("\n").split("\t")[1:3]]


def ragpulse(data: Path, part: str) -> list[int]:
    lines = (data / "ragpulse" / "0_trace.jsonl").read_text(encoding="utf-8").split("\n")
    requests = sorted((json.loads(line) for line in lines if line.strip()), key=lambda one: float(one["timestamp"]))
    return [key for request in requests for key in request["hash_ids"][part]]


def mooncake(data: Path, name: str) -> list[int]:
    with gzip.open(data / "mooncake" / f"{name}_trace.jsonl.gz", "rt", encoding="utf-8") as file:
        return [key for line in file for key in json.loads(line)["hash_ids"]]


def banking77(data: Path) -> list[str]:
    with (data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def clinc150(data: Path) -> list[str]:
    parts = json.loads((data / "clinc150" / "train_val.json").read_text(encoding="utf-8"))
    return [text for part in parts.values() for text, _ in part]


def search(data: Path) -> list[str]:
    folder = data / "search-queries"
    found = [line.partition("\t")[0] for line in lines_of(folder / "topics.dpr.nq.test.txt")]
    found += [line.partition(":")[2] for line in lines_of(folder / "topics.mq.1-10000.txt", "latin-1")]
    for path in sorted(folder.glob("*.tsv")):
        found += [line.partition("\t")[2] for line in lines_of(path)]
    return found


def lines_of(path: Path, encoding: str = "utf-8") -> list[str]:
    return path.read_text(encoding=encoding).rstrip("\n").split("\n")


def numbered(keys: Iterable[Any]) -> NDArray[np.int64]:
    table: dict[Any, int] = {}
    return np.array([table.setdefault(key, len(table)) for key in keys], np.int64)


def zipf(texts: Sequence[str], s: float) -> NDArray[np.int64]:
    rng = np.random.default_rng(SEED)
    unique = len(set(texts))
    weights = 1 / np.arange(1, unique + 1) ** s
    order = rng.permutation(unique)
    return order[rng.choice(unique, 10 * unique, p=weights / weights.sum())]


def with_scan(trace: NDArray[np.int64], entries: int, scan: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The trace with keys that come once among its own, and which are its own."""
    own = np.ones(len(trace), np.bool_)
    if scan == "none":
        return trace, own
    strangers = trace.max() + 1 + np.arange(5 * entries)
    first, last = (0.5, 0.5) if scan == "burst" else (0.25, 0.75)
    places = np.linspace(first * len(trace), last * len(trace), len(strangers)).astype(np.int64)
    return np.insert(trace, places, strangers), np.insert(own, places, False)


def hit_ratio(access: Access, keys: Sequence[bytes], own: Sequence[bool]) -> float:
    hits = sum(access(key) and mine for key, mine in zip(keys, own, strict=True))
    return hits / sum(own)


def key_words(count: int, seed: int) -> list[bytes]:
    """Keys of 16 bytes for numbers from 0, by one hash of many."""
    salt = b"%d" % seed if seed else b""
    return [hashlib.blake2b(b"%d" % number, digest_size=16, salt=salt).digest() for number in range(count)]


def cells(data: Path, wanted: Sequence[str], seeds: int) -> Iterable[dict[str, Any]]:
    for name, make in traces(data):
        if wanted and not any(name.startswith(one) for one in wanted):
            continue
        trace = make()
        unique = int(trace.max()) + 1
        for share in SHARES:
            entries = max(1, int(share * unique))
            words = [key_words(unique + 5 * entries, seed) for seed in range(seeds)]
            for scan in SCANS:
                keys, own = with_scan(trace, entries, scan)
                cell: dict[str, Any] = {"trace": name, "entries": entries, "scan": scan, "requests": len(trace)}
                yield cell | one_cell(entries, keys.tolist(), own.tolist(), words)


def one_cell(entries: int, keys: list[int], own: list[bool], words: list[list[bytes]]) -> dict[str, Any]:
    """Each cache's ratio, a list over hashes, its median, and who is ahead of whom."""
    ratios: dict[str, list[float]] = {}
    cell: dict[str, Any] = {"ratios": ratios}
    for cache, build in CACHES.items():
        started, some = perf_counter(), words[:1] if cache == "cachetools" else words
        ratios[cache] = [hit_ratio(build(entries), [word[n] for n in keys], own) for word in some]
        ratios[cache] *= len(words) // len(some)
        cell[cache] = median(ratios[cache])
        cell[f"{cache}_us"] = (perf_counter() - started) / len(keys) / len(some) * 1e6
    counted = [peer for peer in CACHES if peer != "tandem" and (peer != "moka" or entries > MOKA_LOG)]
    leads = [ours - max(ratios[peer][seed] for peer in counted) for seed, ours in enumerate(ratios["tandem"])]
    best = max(counted, key=cell.__getitem__)
    return cell | {"best": best, "lead": median(leads), "worst": min(leads)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with banking77, clinc150, qqp, ...")
    parser.add_argument("--traces", default="", help="only those that begin so, by commas")
    parser.add_argument("--seeds", type=int, default=1, help="how many hashes of the keys (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the cells there, too")
    args = parser.parse_args()
    versions = " ".join(f"{name} {version(name)}" for name in ("cachetools", "theine", "moka-py"))
    print(f"python {platform.python_version()}, {versions}, seed {SEED}, {args.seeds} hashes of the keys")
    print("hit ratios in %, medians over the hashes; lead in points over the best peer, median and worst")
    columns = "".join(f"{name:>11}" for name in CACHES)
    print(f"{'trace':23} {'entries':>7} {'scan':6}{columns}   best peer    lead   worst")
    found: list[dict[str, Any]] = []
    for cell in cells(args.data, [name for name in args.traces.split(",") if name], max(1, args.seeds)):
        found.append(cell)
        ratios = "".join(f"{100 * cell[name]:11.2f}" for name in CACHES)
        head = f"{cell['trace']:23} {cell['entries']:7} {cell['scan']:6}"
        print(f"{head}{ratios}   {cell['best']:10} {100 * cell['lead']:+6.2f}  {100 * cell['worst']:+6.2f}", flush=True)
    print(f"\n{'worst cell of':23} {'entries':>7} {'scan':6}  median   worst")
    for trace in dict.fromkeys(cell["trace"] for cell in found):
        cell = min((cell for cell in found if cell["trace"] == trace), key=lambda cell: cell["worst"])
        shown = f"{100 * cell['lead']:+6.2f}  {100 * cell['worst']:+6.2f}"
        print(f"{trace:23} {cell['entries']:7} {cell['scan']:6}  {shown}")
    leads = [cell["lead"] for cell in found]
    worst = min(cell["worst"] for cell in found)
    print(f"\n{len(found)} cells: lead {100 * np.mean(leads):+.2f} points on average, at worst {100 * worst:+.2f}")
    print("an access, put included, in microseconds: " + mean_times(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return int(worst < -POINT)


def mean_times(found: list[dict[str, Any]]) -> str:
    return ", ".join(f"{name} {np.mean([cell[f'{name}_us'] for cell in found]):.1f}" for name in CACHES)


if __name__ == "__main__":
    sys.exit(main())
