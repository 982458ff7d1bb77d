"""Arrivals that are drawn: without memory, and in bursts."""

from __future__ import annotations

import numpy as np

from tandem.simulation.base import Draw, Times, Workload
from tandem.simulation.lengths import draw_lengths

REQUESTS = 10_000
"""How many, where nobody says."""


def poisson(draw: Draw) -> Workload:
    """Exponential gaps, at one request a second: what many independent callers amount to."""
    rng = np.random.default_rng(draw.seed)
    times_s = np.cumsum(rng.exponential(1.0, draw.requests or REQUESTS))
    return Workload(times_s, draw_lengths(draw, len(times_s)), f"Poisson arrivals, {draw.lengths}")


def bursty(draw: Draw) -> Workload:
    """Gaps from a gamma distribution of mean 1 and the coefficient of variation asked for: over 1, bursts and pauses
    (a renewal process, as ServeGen 2025 fits to tenants of language models)."""
    rng = np.random.default_rng(draw.seed)
    times_s = gamma_times(rng, draw.requests or REQUESTS, draw.cv)
    lengths = draw_lengths(draw, len(times_s))
    return Workload(times_s, lengths, f"bursty arrivals, gaps of CV {draw.cv:g}, {draw.lengths}")


def gamma_times(rng: np.random.Generator, n: int, cv: float) -> Times:
    """``n`` times whose gaps have mean 1 and that coefficient of variation."""
    shape = 1.0 / cv**2
    return np.cumsum(rng.gamma(shape, 1.0 / shape, n))
