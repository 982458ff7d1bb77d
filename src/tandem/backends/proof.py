"""The proof that a backend keeps its tier's contract: its vectors of fixed texts against the fp32 reference."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import Backend
from tandem.batching.packing import arrange, fill
from tandem.models.tokenizer import TextTokenizer
from tandem.types import Packing, Tier, TokenBatch

# The least cosine to the fp32 reference that a tier's vectors may have. bf16 has 8 bits of mantissa: 6 layers of MiniLM
# keep 0.99999, 24 layers about 0.9995.
BOUNDS = {Tier.FP32: 0.99999, Tier.BF16: 0.999}

PROBE_TEXTS = (
    "a",
    "How many planets are there in the solar system?",
    "The quick brown fox jumps over the lazy dog, and 1,234.56 other things happen at 7:45 p.m.",
    "Быстрая лиса перепрыгнула через ленивую собаку. 素早い茶色の狐。",
    "An embedding maps a text to a point, so that texts which mean the same lie near each other. A service that "
    "computes embeddings must give the same point for the same text, whatever else it computes at that moment, and "
    "on whichever device: otherwise an index built on Monday does not answer on Tuesday.",
)


class Proof(msgspec.Struct, frozen=True):
    """``cosine`` is the smallest over the texts, ``bound`` what the tier promises."""

    cosine: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.cosine >= self.bound


def probe_batch(tokenizer: TextTokenizer, packing: Packing) -> TokenBatch:
    """The probe texts as they would be served: in the backend's own packing."""
    texts = tokenizer.encode(PROBE_TEXTS, truncate=True).ids
    lengths = [len(text) for text in texts]
    layout = arrange(lengths, packing, max(lengths), tokenizer.max_tokens)
    return TokenBatch(
        ids=fill(layout, texts, tokenizer.pad_id),
        lengths=np.array(lengths, np.int32),
        places=np.array(layout.starts, np.int32),
    )


def prove(backend: Backend, batch: TokenBatch, reference: NDArray[np.float32]) -> Proof:
    """Run ``batch`` [n, s] and compare with ``reference`` [n, dims]."""
    return Proof(smallest_cosine(backend.run(batch), reference), BOUNDS[backend.tier])


def smallest_cosine(rows: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The smallest row-wise cosine, in float64; -1 for rows that are not finite."""
    a, b = rows.astype(np.float64), reference.astype(np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return -1.0
    norms = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-300)
    return float(((a * b).sum(axis=1) / norms).min())
