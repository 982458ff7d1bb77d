"""Rows and queries for ``bench/ann.py``, with the truth about them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows

_BATCH = 10_000


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``queries`` of each kind. ``file``: real rows, float32 [n, d] as .npy; made ones without it."""

    queries: int = 1000
    dims: int = 384
    seed: int = 7
    file: Path | None = None


class Task(msgspec.Struct, frozen=True, eq=False):
    """Rows, queries of both kinds, and the best cosine of each."""

    rows: Rows
    near: Rows
    fresh: Rows
    best_near: NDArray[np.float32]
    best_fresh: NDArray[np.float32]

    def of(self, queries: int) -> Task:
        """The same with fewer queries, for what takes long."""
        few = slice(queries)
        return Task(self.rows, self.near[few], self.fresh[few], self.best_near[few], self.best_fresh[few])


def task(count: int, options: TaskOptions) -> Task:
    """``count`` rows to keep, and queries of both kinds with their truth."""
    total = count + options.queries
    if options.file is not None:
        real = np.load(options.file).astype(np.float32)
        rows = grown_rows(real, total, options.seed)
    else:
        rows = made_rows(total, options.dims, options.seed)
    rng = np.random.default_rng(options.seed + 1)
    kept, fresh = rows[:count], rows[count:]
    picked = kept[rng.choice(count, min(options.queries, count), replace=False)]
    near = turned(picked, rng.uniform(0.9, 0.995, len(picked)).astype(np.float32), rng)
    return Task(kept, near, fresh, best_cosines(kept, near), best_cosines(kept, fresh))


def made_rows(n: int, dims: int, seed: int) -> Rows:
    """float32 [n, dims] at length 1; the same first rows whatever ``n`` beyond it, for the same number of topics."""
    rng = np.random.default_rng(seed)
    weights = (1 + np.arange(dims, dtype=np.float32)) ** np.float32(-0.35)
    weights /= np.sqrt(np.mean(weights**2))

    def drawn(count: int) -> Rows:
        return rng.standard_normal((count, dims), dtype=np.float32) * weights

    topics = drawn(max(n // 2000, 4))
    subjects = drawn(max(n // 20, 8))
    subjects *= np.float32(0.65)
    subjects += topics[rng.integers(0, len(topics), len(subjects))] * np.float32(0.75)
    rows = np.empty((n, dims), np.float32)
    for start in range(0, n, _BATCH):
        part = rows[start : start + _BATCH]
        part[:] = drawn(len(part)) * rng.uniform(0.25, 0.9, (len(part), 1)).astype(np.float32)
        part += subjects[rng.integers(0, len(subjects), len(part))]
    return unit(rows)


def grown_rows(real: Rows, n: int, seed: int) -> Rows:
    """``n`` rows from fewer real ones: each a real row with a third to none of another real row mixed in and a little
    noise, so its neighbours are at 0.7 to 0.97, and its surroundings are those of real rows."""
    rng = np.random.default_rng(seed)
    if len(real) >= n:
        return unit(real[rng.permutation(len(real))[:n]])
    rows = np.empty((n, real.shape[1]), np.float32)
    for start in range(0, n, _BATCH):
        part = rows[start : start + _BATCH]
        others = real[rng.integers(0, len(real), len(part))]
        share = rng.uniform(0.1, 0.6, (len(part), 1)).astype(np.float32)
        noise = rng.standard_normal(part.shape, dtype=np.float32) * np.float32(0.25 / np.sqrt(real.shape[1]))
        part[:] = real[rng.integers(0, len(real), len(part))] + share * others + noise
    return unit(rows)


def unit(rows: Rows) -> Rows:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def turned(rows: Rows, cosines: NDArray[np.float32], rng: np.random.Generator) -> Rows:
    """Each row at length 1 turned to the given cosine with itself, in a random direction."""
    away = rng.standard_normal(rows.shape, dtype=np.float32)
    away -= np.sum(away * rows, axis=1, keepdims=True) * rows
    sine = np.sqrt(1 - cosines**2)[:, None]
    return np.asarray(cosines[:, None] * rows + sine * unit(away), np.float32)


def best_cosines(rows: Rows, queries: Rows) -> NDArray[np.float32]:
    """The truth: of each query, the largest cosine in float32."""
    best = np.full(len(queries), -1, np.float32)
    for start in range(0, len(rows), _BATCH):
        np.maximum(best, (queries @ rows[start : start + _BATCH].T).max(axis=1), out=best)
    return best
