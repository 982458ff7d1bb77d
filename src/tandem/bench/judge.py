"""Are the vectors right? Every engine in a report is held to the plain numpy reference, Tandem like its peers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tandem.backends.proof import BOUNDS
from tandem.bench.report import Check
from tandem.bench.stats import Vectors, lowest_cosine
from tandem.models.loaded import LoadedModel
from tandem.types import Tier, TokenBatch

SAMPLE = 24
PEER_BOUND = {Tier.FP32: 0.9999, Tier.BF16: 0.999}


class Judge:
    """Holds the fp32 reference of an even sample of the texts: it is slow, and all of them would take minutes."""

    def __init__(self, model: LoadedModel, texts: Sequence[str], sample: int = SAMPLE) -> None:
        self.places = np.unique(np.linspace(0, len(texts) - 1, min(sample, len(texts))).astype(int))
        self._reference = model.reference(pad(model, [texts[i] for i in self.places]))

    def check(self, name: str, rows: Vectors, tier: Tier, *, peer: bool = False) -> Check:
        """The lowest cosine of the sampled rows of ``rows``, which is for all texts, against the tier's promise."""
        bound = (PEER_BOUND if peer else BOUNDS)[tier]
        return Check(f"{name}: lowest cosine to the fp32 reference", self.cosine(rows[self.places]), bound)

    def cosine(self, sampled: Vectors) -> float:
        """For rows of the sampled texts only, in their order."""
        return lowest_cosine(sampled, self._reference)


def pad(model: LoadedModel, texts: Sequence[str]) -> TokenBatch:
    """All ``texts`` as one padded batch."""
    rows = model.tokenizer.encode(texts, truncate=True).ids
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.full((len(rows), int(lengths.max())), model.tokenizer.pad_id, np.int32)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return TokenBatch(ids=ids, lengths=lengths)
