"""What the near-duplicate tier would have served on a stream of texts whose rows are known, and how near that was."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.caching.near_duplicate import NearDuplicateTier, NearOptions, Query, cosine_of
from tandem.caching.signatures import Signer
from tandem.types import Rows
from tandem.verification import Promise, learn


class Replay(msgspec.Struct, frozen=True):
    """``texts`` looked up, in order. Of each that had a candidate: its place, the candidate's similarity and the true
    cosine between both rows; arrays [found], places ascending."""

    texts: int
    places: NDArray[np.int64]
    similarities: NDArray[np.float64]
    cosines: NDArray[np.float64]


class Outcome(msgspec.Struct, frozen=True):
    """A threshold learned from the first part of a stream, at work on the rest. Of ``texts`` there ``served`` were
    served and ``wrong`` of them were under the bound. ``could`` is what the best threshold would have served there,
    had it known the truth."""

    threshold: float | None
    texts: int
    served: int
    wrong: int
    could: int

    @property
    def error(self) -> float:
        return self.wrong / self.served if self.served else 0.0

    @property
    def share(self) -> float:
        return self.served / self.texts if self.texts else 0.0


def replay(queries: Sequence[Query], rows: Rows, options: NearOptions, signer: Signer) -> Replay:
    """Look each of ``queries`` up among those before it; ``rows`` [n, d] are the model's own. Nothing is served."""
    keys = [place.to_bytes(16, "big") for place in range(len(queries))]
    tier = NearDuplicateTier(options, signer, lambda key: rows[int.from_bytes(key, "big")])
    places, similarities, cosines = [], [], []
    for place, (query, key) in enumerate(zip(queries, keys, strict=True)):
        look = tier.look_up(query)
        if look.nearest is not None:
            places.append(place)
            similarities.append(look.nearest.similarity)
            cosines.append(cosine_of(rows[place], rows[int.from_bytes(look.nearest.key, "big")]))
        # Labels are this function's own, so the tier's guard is told of none.
        tier.learn(query, msgspec.structs.replace(look, audit=False), key, rows[place])
    return Replay(len(queries), np.array(places, np.int64), np.array(similarities, float), np.array(cosines, float))


def judge(seen: Replay, cosine: float, promise: Promise, *, learn_on: float = 0.5) -> Outcome:
    """Learn from the first ``learn_on`` of the texts, serve the rest."""
    split = int(seen.texts * learn_on)
    past = seen.places < split
    wrong = seen.cosines < cosine
    learned = learn(seen.similarities[past], wrong[past], promise)
    later, truth = seen.similarities[~past], wrong[~past]
    served = later >= learned.threshold if learned is not None else np.zeros(len(later), np.bool_)
    return Outcome(
        threshold=None if learned is None else learned.threshold,
        texts=seen.texts - split,
        served=int(served.sum()),
        wrong=int(truth[served].sum()),
        could=most(later, truth, promise.max_error),
    )


def curve(seen: Replay, shares: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """For each of ``shares`` of all texts, served by the highest similarities: the share that there was, and of the
    true cosines there the mean, the 5 % and the 1 % quantile."""
    order = np.argsort(-seen.similarities, kind="stable")
    found = []
    for share in shares:
        served = seen.cosines[order[: round(share * seen.texts)]]
        if len(served):
            low, least = np.quantile(served, (0.05, 0.01)).tolist()
            found.append((len(served) / seen.texts, float(served.mean()), low, least))
    return found


def most(similarities: NDArray[np.float64], wrong: NDArray[np.bool_], max_error: float) -> int:
    """How many the highest similarities could serve with at most this share of them wrong."""
    if not len(wrong):
        return 0
    failed = np.cumsum(wrong[np.argsort(-similarities, kind="stable")])
    kept = np.flatnonzero(failed <= max_error * np.arange(1, len(wrong) + 1))
    return int(kept[-1]) + 1 if len(kept) else 0
