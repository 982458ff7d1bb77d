"""How an index does on a task, and how others do on it: looking at every row, usearch as it comes, FAISS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.ann_rows import Task
from tandem.types import Rows
from tandem.vectors import IndexOptions

THRESHOLD = 0.95
# Queries of each kind for what looks at every row.
FEW = 100
# Rows a call, where several are looked up at once.
BATCHES = (16, 64)


class Found(msgspec.Struct, frozen=True):
    """One index on one set: seconds a look-up, alone and with others in one call (``BATCHES``), recalls, and how far
    cosines were off."""

    name: str
    bytes_per_entry: float
    build_s: float
    p50_s: float
    p99_s: float
    near: float
    fresh: float
    error: float = 0.0
    spread: float = 0.0
    verdicts: float = 0.0
    together_s: tuple[float, ...] = ()

    def row(self) -> tuple[str, ...]:
        times: tuple[str, ...] = (f"{self.build_s:,.1f}", f"{self.p50_s * 1e3:.3f}", f"{self.p99_s * 1e3:.3f}")
        times += tuple(f"{one * 1e3:.3f}" for one in self.together_s) or ("",) * len(BATCHES)
        cosine = (f"{self.error:.5f}", f"{self.spread:.5f}", f"{self.verdicts:.4f}")
        return (self.name, f"{self.bytes_per_entry:,.0f}", *times, f"{self.near:.4f}", f"{self.fresh:.4f}", *cosine)


HEAD = (
    "index",
    "bytes",
    "build s",
    "p50 ms",
    "p99 ms",
    "of 16",
    "of 64",
    "near",
    "fresh",
    "cosine off",
    "std",
    "verdicts",
)

Look = Callable[[Rows, int], tuple[NDArray[np.int64], NDArray[np.float32]]]


def measured(name: str, look: Look, task: Task, nbytes: int, build_s: float) -> Found:
    """One look-up at a time, the two kinds of query in turn, after a few to warm up."""
    for place in range(min(20, len(task.near))):
        look(task.near[place : place + 1], 1)
    times: list[float] = []

    def ask(queries: Rows, best: NDArray[np.float32]) -> tuple[float, NDArray[np.float32], float]:
        ids, given = np.empty(len(queries), np.int64), np.empty(len(queries), np.float32)
        for place in range(len(queries)):
            query = queries[place : place + 1]
            started_s = time.perf_counter()
            found, cosines = look(query, 1)
            times.append(time.perf_counter() - started_s)
            ids[place], given[place] = found[0, 0], cosines[0, 0]
        truth = np.einsum("ij,ij->i", queries, task.rows[ids])
        verdicts = np.mean((given >= THRESHOLD) != (best >= THRESHOLD))
        return float(np.mean(truth >= best - 1e-6)), given - truth, float(verdicts)

    near, off, verdicts = ask(task.near, task.best_near)
    fresh, off_fresh, _ = ask(task.fresh, task.best_fresh)
    off = np.concatenate([off, off_fresh])
    p50_s, p99_s = np.quantile(times, [0.5, 0.99])
    return Found(
        name=name,
        bytes_per_entry=nbytes / len(task.rows),
        build_s=build_s,
        p50_s=float(p50_s),
        p99_s=float(p99_s),
        near=near,
        fresh=fresh,
        error=float(np.abs(off).max()),
        spread=float(off.std()),
        verdicts=verdicts,
        together_s=tuple(together(look, task, size) for size in BATCHES),
    )


def together(look: Look, task: Task, size: int) -> float:
    """Seconds a look-up where ``size`` rows are looked up in one call; the median call."""
    times: list[float] = []
    for start in range(0, len(task.fresh) - size + 1, size):
        for queries in (task.near, task.fresh):
            started_s = time.perf_counter()
            look(queries[start : start + size], 1)
            times.append((time.perf_counter() - started_s) / size)
    return float(np.median(times)) if times else 0.0


def plain_numpy(task: Task) -> Found:
    """What most would write: float32 rows in one array, a product and argmax."""

    def look(query: Rows, _: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if len(query) == 1:
            cosines = task.rows @ query[0]
            place = np.argmax(cosines)
            return np.array([[place]]), cosines[place][None, None]
        every = query @ task.rows.T
        places = np.argmax(every, axis=1)[:, None]
        return places, np.take_along_axis(every, places, 1)

    return measured("numpy, float32", look, task.of(FEW), task.rows.nbytes, 0)


def peers(task: Task, options: IndexOptions, ef: int) -> list[Found]:
    """The same parameters in usearch as it comes, and in FAISS with 8-bit codes; each where it is installed."""
    found = (faiss_peer(task, options, ef), faiss_cells(task, options, ef), usearch_peer(task, options, ef))
    return [one for one in found if one is not None]


def usearch_peer(task: Task, options: IndexOptions, ef: int) -> Found | None:
    try:
        from usearch.index import Index as Raw
    except ImportError:
        return None
    raw = Raw(
        ndim=options.dims,
        metric="cos",
        dtype="i8",
        connectivity=options.connectivity,
        expansion_add=options.expansion_add,
        expansion_search=ef,
    )
    started_s = time.perf_counter()
    raw.add(np.arange(len(task.rows)), task.rows, threads=1)
    build_s = time.perf_counter() - started_s

    def look(query: Rows, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        found = raw.search(query, k, threads=1)
        return found.keys.astype(np.int64).reshape(len(query), k), 1 - found.distances.reshape(len(query), k)

    return measured("usearch i8, as it comes", look, task, raw.memory_usage, build_s)


def faiss_peer(task: Task, options: IndexOptions, ef: int) -> Found | None:
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    # Its stubs name the quantizer's class where they mean its kind.
    kind: Any = faiss.ScalarQuantizer.QT_8bit
    raw = faiss.IndexHNSWSQ(options.dims, kind, options.connectivity, faiss.METRIC_INNER_PRODUCT)
    raw.hnsw.efConstruction, raw.hnsw.efSearch = options.expansion_add, ef
    started_s = time.perf_counter()
    raw.train(task.rows[:: max(1, len(task.rows) // 100_000)])
    raw.add(task.rows)
    build_s = time.perf_counter() - started_s

    def look(query: Rows, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        cosines, ids = raw.search(query, k)
        return ids, cosines

    return measured("faiss HNSW SQ8", look, task, faiss.serialize_index(raw).nbytes, build_s)


def faiss_cells(task: Task, options: IndexOptions, probes: int) -> Found | None:
    """FAISS without a graph: 4 sqrt(n) cells of 8-bit codes, of which ``probes`` are looked into."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    kind: Any = faiss.ScalarQuantizer.QT_8bit
    cells = int(4 * np.sqrt(len(task.rows)))
    middles = faiss.IndexFlatIP(options.dims)
    raw = faiss.IndexIVFScalarQuantizer(middles, options.dims, cells, kind, faiss.METRIC_INNER_PRODUCT)
    raw.cp.niter = 10
    started_s = time.perf_counter()
    raw.train(task.rows[:: max(1, len(task.rows) // 100_000)])
    raw.add(task.rows)
    raw.nprobe = probes
    build_s = time.perf_counter() - started_s

    def look(query: Rows, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        cosines, ids = raw.search(query, k)
        return ids, cosines

    name = f"faiss IVF{cells} SQ8, {probes} probes"
    return measured(name, look, task, faiss.serialize_index(raw).nbytes, build_s)
