"""From measured batches to a device's cost: no coefficient under 0, and how far times scatter around them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError
from tandem.scheduling.cost_model import Cost
from tandem.simulation.profile import Shape

RESIDUALS = 41
# Features of about equal size, or least squares sees only the largest.
_SCALE = np.array([1.0, 500.0, 50_000.0, 20.0, 1.0])


class Timed(msgspec.Struct, frozen=True):
    """A batch and what it took, alone on the device; ``cold``: its slot's last batch had another shape, or the slot
    had nothing to do just before."""

    shape: Shape
    cold: bool
    seconds: float


class Fitted(msgspec.Struct, frozen=True):
    """``residuals``: quantiles of measured over fitted at even steps from 0 to 1, mean 1. ``error``: the median of how
    far a batch is from the fit, as a share."""

    cost: Cost
    cold_s: float
    residuals: tuple[float, ...]
    error: float


def fit(batches: Sequence[Timed]) -> Fitted:
    """Least squares of the relative error, so that a batch of 1 ms counts as much as one of 100. Raises ConfigError for
    too few batches or times of 0."""
    if len(batches) < 2 * len(_SCALE) or min(batch.seconds for batch in batches) <= 0:
        raise ConfigError(f"a fit needs {2 * len(_SCALE)} batches that took time, got {len(batches)}")
    rows = np.array([(1.0, b.shape.padded_tokens, b.shape.sum_squares, b.shape.n, b.cold) for b in batches], np.float64)
    seconds = np.array([batch.seconds for batch in batches])
    theta = _not_negative((rows / _SCALE) / seconds[:, None], np.ones(len(seconds))) / _SCALE
    ratio = seconds / np.maximum(rows @ theta, 1e-9)
    fixed_s, token_s, square_s, text_s, cold_s = theta.tolist()
    return Fitted(
        cost=Cost(fixed_s, max(token_s, 1e-9), square_s, text_s),
        cold_s=cold_s,
        residuals=spread(ratio),
        error=float(np.median(np.abs(ratio - 1))),
    )


def spread(ratios: NDArray[np.float64]) -> tuple[float, ...]:
    """Quantiles at even steps, scaled so that what is drawn between them has mean 1."""
    quantiles = np.quantile(ratios, np.linspace(0, 1, RESIDUALS))
    mean = float((quantiles[:-1] + quantiles[1:]).mean() / 2)
    return tuple(np.round(quantiles / mean, 4).tolist())


def _not_negative(rows: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with no coefficient under 0: what would be is taken out, the most negative first, and the rest
    fitted anew. Not always the optimum of Lawson and Hanson (1974); with a few features that all cost time, it
    is."""
    kept = list(range(rows.shape[1]))
    while kept:
        found, *_ = np.linalg.lstsq(rows[:, kept], wanted, rcond=None)
        if found.min() >= 0:
            theta = np.zeros(rows.shape[1])
            theta[kept] = found
            return theta
        del kept[int(found.argmin())]
    return np.zeros(rows.shape[1])
