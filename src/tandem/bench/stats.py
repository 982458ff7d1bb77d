"""Numbers over repeated runs: medians with spread, interleaving, paired ratios, rank correlation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

Vectors = NDArray[np.float32]


class Summary(msgspec.Struct, frozen=True):
    """Median and quartiles of ``values``, which are kept as they were measured."""

    median: float
    q1: float
    q3: float
    values: list[float]

    def text(self, digits: int = 2) -> str:
        """``median [q1 - q3]``, or the value alone when there is one."""
        if len(self.values) == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} [{self.q1:,.{digits}f} - {self.q3:,.{digits}f}]"


def summarize(values: Sequence[float]) -> Summary:
    """Median and quartiles (linear between ranks). Raises ValueError when there are none."""
    if not values:
        raise ValueError("nothing was measured")
    q1, median, q3 = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return Summary(median, q1, q3, [float(value) for value in values])


def interleave(runs: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Run each once a round, A B C, C B A, ...: a slow minute of the machine falls on all of them.

    Every second round goes backwards, so that none always follows the same neighbour. The first ``warm_up`` rounds are
    run and not counted. What a run returns is its value.
    """
    values: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for index in range(-warm_up, rounds):
        for name in names if index % 2 == 0 else reversed(names):
            value = runs[name]()
            if index >= 0:
                values[name].append(value)
    return values


def paired_ratio(over: Sequence[float], under: Sequence[float]) -> Summary:
    """Ratios of values of the same round: what the machine did to both falls out, and the spread is the ratio's own."""
    return summarize([a / b for a, b in zip(over, under, strict=True)])


def lowest_cosine(rows: Vectors, reference: Vectors) -> float:
    """The smallest cosine between rows of the same index; both [n, d]. Raises ValueError when the shapes differ."""
    if rows.shape != reference.shape:
        raise ValueError(f"shapes differ: {rows.shape} and {reference.shape}")
    return float(cosines(rows, reference).min())


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """Cosine of each pair of rows, in float64: [n]."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    products: NDArray[np.float64] = np.einsum("nd,nd->n", a, b)
    lengths: NDArray[np.float64] = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide(products, lengths)


def spearman(left: ArrayLike, right: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank."""
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks
