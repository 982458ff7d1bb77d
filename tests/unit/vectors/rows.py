"""Rows for tests of indexes."""

from __future__ import annotations

import numpy as np

from tandem.types import Rows

DIMS = 16


def made(n: int, seed: int = 1, dims: int = DIMS) -> Rows:
    """float32 [n, dims] at length 1."""
    rows = np.random.default_rng(seed).standard_normal((n, dims)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
