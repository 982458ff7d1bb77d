"""What a batch of a model takes at its peak on an engine: guessed from the encoder, fitted to measured peaks."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller

import numpy as np

from tandem.backends.base import Backend
from tandem.memory.estimate import EncoderShape, Footprint, PeakModel, guess
from tandem.memory.measure import peak_bytes
from tandem.models.description import EncoderDescription
from tandem.types import Tier, TokenBatch

# (rows, width): one of narrow rows, one of wide ones, both as large as batches are on a CPU.
_MEASURED = ((32, 32), (4, 256))
# An engine prepares weights once for some widths; what that takes is the model's and no batch's.
_PREPARING = (16, 64)


# Engines that keep attention's scores to themselves, a few at a time.
_WITHOUT_SCORES = ("openvino", "torch")


def guessed(d: EncoderDescription, backend: str, tier: Tier) -> Footprint:
    """For an encoder that nobody has run yet on that engine."""
    return guess(
        EncoderShape(
            hidden=d.hidden,
            heads=d.heads,
            intermediate=d.intermediate,
            dims=d.dims,
            gated=d.gated,
            element_bytes=4 if tier is Tier.FP32 else 2,
            scores=backend not in _WITHOUT_SCORES,
        )
    )


def fitted(d: EncoderDescription, backend: str, tier: Tier, make: Callable[[], Backend], widest: int) -> Footprint:
    """The guess, corrected by peaks of this process, in which nothing else may run meanwhile; ``widest``: the longest
    text in tokens. ``make`` is called once a measurement, as an engine keeps what it ran before."""
    model = PeakModel(guessed(d, backend, tier))
    for rows, width in _MEASURED:
        if width > widest:
            break
        batch = _batch(rows, width)
        peak = peak_bytes(lambda: _prepared(make()), methodcaller("run", batch))
        if peak is None:
            break
        model.observe(rows * width, rows * width * width, rows, peak)
    return model.footprint


def _prepared(backend: Backend) -> Backend:
    for width in _PREPARING:
        backend.run(_batch(1, width))
    return backend


def _batch(rows: int, width: int) -> TokenBatch:
    return TokenBatch(
        ids=np.full((rows, width), 7, np.int32),
        lengths=np.full(rows, width, np.int32),
        places=np.arange(0, rows * width, width, dtype=np.int32),
    )
