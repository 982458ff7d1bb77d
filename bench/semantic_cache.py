"""The semantic cache on streams of unique requests: hits, and what a hit saves.

Run from the repository: ``python -m bench.semantic_cache --set banking77``. Real texts and their real vectors, each
text once, in a shuffled order: it is looked up at a cosine, then stored. ``found`` is the share that has a hit in the
cache (its default index, rows as int8), ``brute force`` the share that has an earlier one in float32.

Latency (row C3): ``tandem serve`` over HTTP, as a user starts it. The rest of the set is in its cache; each of the last
``--timed`` texts is looked up, which embeds it through the model, and on a miss stored with its answer. An answer takes
``--answer-ms``, which is added and not waited for; all else is measured, one request at a time on one connection. It
could mislead in that nobody else uses the machine, and that a cache with more in it finds more.

Fails when the cache, or the server, finds fewer than brute force - 1 %.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import http.client
import json
import socket
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.bench.conditions import conditions
from tandem.bench.processes import HOST, Server, tandem_server
from tandem.bench.texts import data_folder
from tandem.clock import SystemClock
from tandem.models.catalog import DEFAULT_MODEL
from tandem.semantic import Item, Namespace, SemanticCache, SemanticOptions
from tandem.types import Rows
from tandem.vectors import IndexOptions, best_index

SPACE = Namespace("bench", "answers")
_BLOCK = 512


def texts_of(name: str, data: Path) -> list[str]:
    """The distinct texts of a data set, in the order of its file."""
    if name in ("banking77", "clinc150"):
        return list(intents_of(name, data))
    return list(dict.fromkeys(text for _, *pair in question_pairs(data) for text in pair))


def intents_of(name: str, data: Path) -> dict[str, str]:
    """Of banking77 or clinc150: what each text wants."""
    if name == "banking77":
        with open(data / "banking77" / "train.csv", newline="", encoding="utf-8") as file:
            return {row["text"]: row["category"] for row in csv.DictReader(file)}
    parts = json.loads((data / "clinc150" / "train_val.json").read_text(encoding="utf-8"))
    return {text: intent for part in parts.values() for text, intent in part}


def question_pairs(data: Path) -> list[tuple[bool, str, str]]:
    """Of qqp: whether two questions were judged to mean the same, and both."""
    with gzip.open(data / "qqp" / "qqp_tune.tsv.gz", "rt", encoding="utf-8") as file:
        next(file)
        cells = (line.rstrip("\n").split("\t") for line in file)
        return [(label == "1", first, second) for label, first, second in cells]


def vectors_of(name: str, texts: list[str], kept: Path | None) -> Rows:
    """Unit rows; read from ``kept`` if they are there, else computed, and kept there."""
    path = kept / f"{name}.npy" if kept else None
    if path is not None and path.is_file():
        rows: Rows = np.load(path)
        if len(rows) != len(texts):
            raise SystemExit(f"{path} has {len(rows)} rows for {len(texts)} texts; remove it")
    else:
        from tandem import Embedder  # Not where vectors are kept: it starts a backend.

        with Embedder() as embedder:
            rows = np.asarray(embedder.embed(texts), np.float32)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rows)
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def new_cache(budget_bytes: int = 1 << 31) -> SemanticCache:
    options = SemanticOptions(budget_bytes=budget_bytes)
    return SemanticCache(options, lambda dims: best_index(IndexOptions(dims=dims)), SystemClock())


def found_by_cache(rows: Rows, threshold: float) -> NDArray[np.bool_]:
    """Of each row, whether it has a hit among those before it."""
    cache = new_cache()
    found = np.zeros(len(rows), np.bool_)
    for place, row in enumerate(rows):
        found[place] = bool(cache.lookup(SPACE, row, threshold).hits)
        cache.store(SPACE, Item(vector=row, payload=b"%d" % place))
    cache.close()
    return found


def found_by_force(rows: Rows, threshold: float) -> NDArray[np.bool_]:
    """The same from all cosines, in float32."""
    found = np.zeros(len(rows), np.bool_)
    for start in range(0, len(rows), _BLOCK):
        cosines = rows[start : start + _BLOCK] @ rows[: start + _BLOCK].T
        earlier = np.arange(cosines.shape[1]) < np.arange(start, start + len(cosines))[:, None]
        found[start : start + _BLOCK] = ((cosines >= threshold) & earlier).any(1)
    return found


def hits(name: str, rows: Rows, threshold: float) -> bool:
    by_cache, by_force = found_by_cache(rows, threshold), found_by_force(rows, threshold)
    share = by_cache.sum() / max(by_force.sum(), 1)
    print(
        f"{name:10} {len(rows):6} requests  found {by_cache.mean():7.3%}  brute force {by_force.mean():7.3%}  "
        f"of what brute force finds {share:7.3%}"
    )
    return bool(share >= 0.99)


class Line:
    """One connection to a server, kept open, as a client of its semantic cache has it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=60)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: object) -> Any:
        content = msgspec.json.encode(body)
        self._connection.request("POST", f"/v1/semantic-cache/{path}", content, {"Content-Type": "application/json"})
        reply = self._connection.getresponse()
        found = msgspec.json.decode(reply.read())
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status}, {found}")
        return found


def latency(name: str, texts: list[str], rows: Rows, arguments: argparse.Namespace) -> bool:
    """Of ``--timed`` requests, when the rest of the set is in the cache."""
    timed = min(arguments.timed, len(texts) // 2)
    expected = int(found_by_force(rows, arguments.threshold)[-timed:].sum())
    spent: dict[bool, list[float]] = {True: [], False: []}
    spec = tandem_server(DEFAULT_MODEL, "auto", more={"cache": "exact", "semantic_cache_bytes": str(1 << 30)})
    with TemporaryDirectory() as folder, Server(spec, Path(folder) / "log") as server:
        line = Line(server.port)
        for row in rows[:-timed]:
            line.post("store", {"vector": row.tolist(), "payload": "an answer"})
        for text in texts[-timed:]:
            started_s = time.perf_counter()
            found = line.post("lookup", {"text": text, "threshold": arguments.threshold})
            is_hit = bool(found["hits"])
            if not is_hit:
                line.post("store", {"text": text, "payload": "an answer"})
            spent[is_hit].append(time.perf_counter() - started_s)
    answer_ms, share = arguments.answer_ms, len(spent[True]) / timed
    hit_ms, miss_ms = (1000 * float(np.mean(spent[which] or [0.0])) for which in (True, False))
    cost_ms = 1000 * float(np.mean(spent[True] + spent[False]))
    print(
        f"{name:10} answer {answer_ms:g} ms: a hit takes {_ms(spent[True])}, {hit_ms / answer_ms - 1:+.1%};"
        f" a miss takes {_ms(spent[False])} more, {miss_ms / answer_ms:+.1%}\n"
        f"{name:10} {share:.1%} hits of {timed} (brute force {expected / timed:.1%}), so all requests"
        f" {cost_ms / answer_ms - share:+.1%}; it pays from answers of {cost_ms / max(share, 1e-9):.1f} ms on"
    )
    return len(spent[True]) >= 0.99 * expected


def _ms(times_s: list[float]) -> str:
    found = np.array(times_s) * 1000
    if not found.size:
        return "nothing"
    median, late = np.quantile(found, [0.5, 0.99])
    return f"{found.mean():.2f} ms (least {found.min():.2f}, p50 {median:.2f}, p99 {late:.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", choices=["banking77", "clinc150", "qqp"], help="all three by default")
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--limit", type=int, help="of texts")
    parser.add_argument("--timed", type=int, default=1000, help="requests whose latency is measured; 0 for none")
    parser.add_argument("--answer-ms", type=float, default=100.0)
    parser.add_argument("--vectors", type=Path, help="a folder where vectors are kept from run to run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = data_folder(None)
    if data is None:
        raise SystemExit("no data: name the folder in TANDEM_DATA")
    print("\n".join(conditions({"threshold": f"{arguments.threshold:g}", "seed": str(arguments.seed)}).lines()))
    good = True
    for name in arguments.set or ["banking77", "clinc150", "qqp"]:
        texts = texts_of(name, data)
        rows = vectors_of(name, texts, arguments.vectors)
        order = np.random.default_rng(arguments.seed).permutation(len(texts))[: arguments.limit]
        texts, rows = [texts[place] for place in order], rows[order]
        good &= hits(name, rows, arguments.threshold)
        if arguments.timed:
            good &= latency(name, texts, rows, arguments)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
