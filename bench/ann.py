"""Look-ups in a vector index: time, recall and memory, against looking at every row, and against peers.

Run from the repository: ``python -m bench.ann --count 100000 --count 1000000``. Rows are made, so that anyone can run
it, or taken from ``--rows FILE.npy``. Made rows are sums of a topic, a sub-topic and something of their own, in
dimensions of falling weight: a row's nearest neighbour is at cosine 0.73 to 0.93 (5 % to 95 %), as with the sentences
of an intent data set under MiniLM. ``near`` queries are kept rows turned to a cosine of 0.90 to 0.995, so the true
neighbour is known to be near; ``fresh`` ones are further rows of the same kind, whose neighbours may be far.

Recall counts an answer as right when its float32 cosine is the best one's, or within 1e-6. Every look-up is timed on
its own, in one thread, arguments and result as numpy arrays; ``of 16`` and ``of 64`` are milliseconds a look-up where
so many share a call. With OPENBLAS_NUM_THREADS=1 looking at every row has one thread as well. It could mislead in that
made rows are easier than real ones to tell apart in int8, and in that a look-up right after others finds warm caches.
Fails on a cosine off by more than the storage's bound, never on slowness.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import msgspec
import numpy as np

from bench.ann_measure import FEW, HEAD, Found, measured, peers, plain_numpy
from bench.ann_rows import Task, TaskOptions, best_cosines, made_rows, task, turned
from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.report import Check, Report, at_least, at_most, shown, table
from tandem.types import Rows
from tandem.vectors import INDEXES, Index, IndexOptions, load_index, save_index
from tandem.vectors.hnsw import HnswIndex
from tandem.vectors.snapshot import read_snapshot

BATCH = 10_000
# The most that int8 moves a cosine of 384 dimensions, over all answers; see vectors/storage.py.
COSINE_BOUND = 0.004


def ours(name: str, options: IndexOptions, task: Task, folder: Path | None) -> tuple[Found, Index]:
    """An index filled with all rows; from ``folder`` if it was kept there."""
    path = folder / f"{name}-{options.storage}-{len(task.rows)}.index" if folder else None
    started_s = time.perf_counter()
    index: Index
    if path is not None and path.exists():
        # As the graph that it was; load_index would give one that changes its kind.
        index = HnswIndex.read(options, read_snapshot(path, options)) if name == "hnsw" else load_index(path, options)
    else:
        index = INDEXES.get(name)(options)
        for start in range(0, len(task.rows), BATCH):
            part = task.rows[start : start + BATCH]
            index.add(np.arange(start, start + len(part)), part)
            run_pending(index)
        if path is not None:
            save_index(index, path)
    build_s = time.perf_counter() - started_s
    label = f"{name}, {options.storage}" + (f", {options.probes} probes" if name == "sharded" else "")
    return measured(label, index.search, task, index.memory_bytes(), build_s), index


def widths(index: Index, task: Task, expansions: list[int]) -> list[Found]:
    """One graph searched with other ef than its own."""
    found: list[Found] = []
    if not isinstance(index, HnswIndex):
        return found
    for expansion in expansions:
        index.widen(expansion)
        found.append(measured(f"hnsw, ef {expansion}", index.search, task, index.memory_bytes(), 0))
    return found


def run_pending(index: Index) -> None:
    """What would be done in the background, now."""
    run = getattr(index, "run_pending", None)
    if run is not None:
        run()


def turnovers(arguments: argparse.Namespace) -> list[tuple[str, ...]]:
    """Recall while all rows are replaced, again and again: at the end of each turn, and at its worst."""
    n, turns = arguments.turnover_count, arguments.turnovers
    every = made_rows(n * (turns + 1), arguments.dims, arguments.seed)
    options = IndexOptions(dims=arguments.dims, background=False)
    index = INDEXES.get("adaptive")(options)
    rng = np.random.default_rng(arguments.seed)
    index.add(np.arange(n), every[:n])
    run_pending(index)
    lines: list[tuple[str, ...]] = [("0", *recall_now(index, every, rng), "")]
    live = np.arange(n)
    step = max(1, n // 20)
    for turn in range(1, turns + 1):
        leaving = rng.permutation(live)
        live = np.arange(n * turn, n * (turn + 1))
        worst = 1.0
        for start in range(0, n, step):
            index.remove(leaving[start : start + step])
            index.add(live[start : start + step], every[live[start : start + step]])
            worst = min(worst, float(recall_now(index, every, rng)[0]))
            run_pending(index)
        lines.append((str(turn), *recall_now(index, every, rng), f"{worst:.4f}"))
    return lines


def recall_now(index: Index, every: Rows, rng: np.random.Generator) -> tuple[str, str]:
    ids = np.sort(index.ids())
    picked = every[rng.choice(ids, 500, replace=False)]
    queries = turned(picked, rng.uniform(0.9, 0.995, 500).astype(np.float32), rng)
    found, _ = index.search(queries, 1)
    truth = np.einsum("ij,ij->i", queries, every[found[:, 0]])
    recall = np.mean(truth >= best_cosines(every[ids], queries) - 1e-6)
    return f"{recall:.4f}", f"{index.memory_bytes() / len(index):,.0f}"


def run(arguments: argparse.Namespace) -> Report:
    words = {"rows": str(arguments.rows or "") or f"made, seed {arguments.seed}", "queries": str(arguments.queries)}
    words["threads"] = f"1, products of numpy's own {os.environ.get('OPENBLAS_NUM_THREADS', 'as many as it likes')}"
    report = Report("Vector indexes", conditions(words))
    neighbours = Neighbours()
    asked = TaskOptions(queries=arguments.queries, dims=arguments.dims, seed=arguments.seed, file=arguments.rows)
    for count in arguments.count:
        made = task(count, asked)
        found = [plain_numpy(made)]
        options = IndexOptions(
            dims=made.rows.shape[1],
            storage=arguments.storage,
            cell_rows=arguments.cell_rows,
            probes=arguments.probes,
            background=False,
        )
        for name in arguments.index:
            result, index = ours(name, options, made.of(FEW) if name == "linear" else made, arguments.keep)
            found.append(result)
            found += widths(index, made, arguments.expansion)
            index.close()
            report.checks.append(Check(f"cosines of {result.name}, {count:,}", -result.error, -COSINE_BOUND))
        found += peers(made, options, arguments.peers) if arguments.peers else []
        print(f"\n{count:,} rows\n" + table(HEAD, [one.row() for one in found]), flush=True)
        report.details[f"{count}"] = [msgspec.to_builtins(one) for one in found]
        judge(report, count, found)
    if arguments.turnovers:
        lines = turnovers(arguments)
        print(table(("turnover", "recall near", "bytes/entry", "worst on the way"), lines), flush=True)
        report.details["turnovers"] = lines
        report.figures.append(at_least("recall after the turnovers", 0.98, float(lines[-1][1]), "", 4))
    report.busy_by_others = neighbours.share()
    return report


def judge(report: Report, count: int, found: list[Found]) -> None:
    linear = [one for one in found if one.name.startswith(("numpy", "linear"))]
    for one in found:
        if one in linear or not one.name.startswith(("hnsw", "sharded", "adaptive")):
            continue
        about = f"{one.name}, {count:,} rows"
        report.figures += [
            at_most(f"{about}: p99", 2, one.p99_s * 1e3, " ms", 3),
            at_least(f"{about}: recall@1, near", 0.98, one.near, "", 4),
            shown(f"{about}: recall@1, fresh", one.fresh, "", 4),
            at_most(f"{about}: bytes an entry", 700, one.bytes_per_entry, "", 0),
        ]
        for other in linear:
            report.figures.append(at_least(f"{about}: faster than {other.name}", 100, other.p50_s / one.p50_s, "x", 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, action="append", help="rows; may be given again (100000)")
    parser.add_argument(
        "--rows", type=Path, help="real rows, float32 [n, d] as .npy; grown to --count where they are fewer"
    )
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000, help="of each kind")
    parser.add_argument("--index", nargs="*", default=["linear", "hnsw", "sharded"], choices=list(INDEXES))
    parser.add_argument("--storage", default="int8", choices=["int8", "float16", "float32"])
    parser.add_argument("--expansion", type=int, nargs="*", default=[], help="further values of ef, for hnsw")
    parser.add_argument("--cell-rows", type=int, default=IndexOptions(dims=1).cell_rows)
    parser.add_argument("--probes", type=int, default=IndexOptions(dims=1).probes)
    parser.add_argument(
        "--peers", type=int, default=0, metavar="EF", help="usearch as it comes and FAISS, with this ef"
    )
    parser.add_argument("--turnovers", type=int, default=0, help="how often all rows are replaced")
    parser.add_argument("--turnover-count", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="folder to keep built indexes in, and to take them from")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="folder for the report as JSON")
    arguments = parser.parse_args()
    arguments.count = arguments.count or [100_000]
    report = run(arguments)
    print("\n" + report.text())
    if arguments.out:
        report.write(arguments.out, "ann")
    return 0 if report.right else 1


if __name__ == "__main__":
    raise SystemExit(main())
