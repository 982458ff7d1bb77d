"""Signatures: what the near-duplicate tier finds a text's neighbours by, far cheaper than the model's own row.

A signature is a float32 vector, and near means a high cosine, so one kind of index serves all. Three were raced
(``bench/near_duplicates.py``): the tokens' rows of the model's own table, mapped onto the model's rows; one-bit MinHash
over token n-grams; and the row of a smaller model, which is computed elsewhere and handed in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows

Signature = NDArray[np.float32]

log = logging.getLogger("tandem.caching")

# MinHash: 256 bits estimate a Jaccard similarity with a standard deviation of at most 1/16.
_HASHES = 256
_ODD = np.uint64(0x9E3779B97F4A7C15)
# Ridge, as a share of the mean squared feature. Between 0.1 and 1 nothing changes that shows.
_RIDGE = 0.3

Run: TypeAlias = Callable[[Callable[[], None]], object]
"""Sees to it that something is done, now or soon."""


def at_once(job: Callable[[], None]) -> None:
    """In the caller's own time."""
    job()


class Signer(Protocol):
    """From token ids to signatures float32 [dims]. ``ready``: whether it can sign yet. ``least``: of the cosine of two,
    under which they are of no interest. On real texts none that can be served at a bound of 0.8 lay near it."""

    name: str
    dims: int
    least: float
    ready: bool

    def observe(self, ids: Sequence[int], row: Signature) -> bool:
        """A text's ids and its true row [d]. True when this one made the signer ready; from
        then on equal ids have equal signatures."""
        ...

    def sign(self, ids: Sequence[int]) -> Signature:
        """float32 [dims]. Only when ready."""
        ...


class StaticSigner:
    """The mean of the tokens' rows in the model's own table, through a linear map that was fitted to the model's rows.

    The map is learned from the first ``fit_after`` texts by ridge regression; their rows cost nothing, as they had to
    be computed anyway. Without it the mean is a rough key: on banking77, at cosine 0.8 and 5 % error, 10 % of texts
    could be served by the plain mean and 24 % by the mapped one, with the guards of then.
    """

    name = "static"
    # At a bound of 0.8 and 5 % error the best thresholds in hindsight were 0.90 to 0.93.
    least = 0.75

    def __init__(
        self, table: Rows, row_dims: int, *, dims: int = 128, fit_after: int = 2000, run: Run = at_once
    ) -> None:
        """``table`` float32 [vocabulary, h], which is held and not copied; ``row_dims``: those of the model's rows.
        Signatures keep the ``dims`` principal directions of what the map gives: a shorter search, and no worse.
        ``run`` is handed the fit, a tenth of a second's work or, beside a busy model, several seconds': a server has
        it done by a thread."""
        self.dims = min(dims, row_dims)
        self.ready = False
        self._table = table
        self._run = run
        self._seen, self._fit_after = 0, max(1, fit_after)
        # Texts as features, the last of which is 1, and their rows: some megabytes until the map is fitted. Sums alone
        # would be smaller, but keeping them takes a product of matrices now and then, on the way of a request.
        self._features = np.ones((self._fit_after, table.shape[1] + 1), np.float32)
        self._rows = np.zeros((self._fit_after, row_dims), np.float32)
        self._map = np.zeros((table.shape[1] + 1, self.dims), np.float32)
        # Rows of the table as the map gives them, each when it is first met: a signature is then a mean of short rows,
        # and of a vocabulary of 250,000 only what is used takes memory.
        self._mapped = np.zeros((len(table), self.dims), np.float32)
        self._is_mapped = bytearray(len(table))

    def observe(self, ids: Sequence[int], row: Signature) -> bool:
        if self.ready or self._seen == self._fit_after:
            return False
        np.add.reduce(self._table[np.array(ids, np.intp)], axis=0, out=self._features[self._seen, :-1])
        self._features[self._seen, :-1] /= len(ids)
        length = float(np.linalg.norm(row))
        self._rows[self._seen] = row / length if length else row
        self._seen += 1
        if self._seen == self._fit_after:
            self._run(self._fit)
        return self.ready

    def sign(self, ids: Sequence[int]) -> Signature:
        if not all(map(self._is_mapped.__getitem__, ids)):
            new = np.unique([one for one in ids if not self._is_mapped[one]])
            self._mapped[new] = self._table[new] @ self._map[:-1]
            for one in new.tolist():
                self._is_mapped[one] = 1
        signature: Signature = np.full(len(ids), 1 / len(ids), np.float32) @ self._mapped.take(ids, 0)
        signature += self._map[-1]
        return signature

    def _fit(self) -> None:
        try:
            self._map = fitted(self._features.astype(np.float64), self._rows, self.dims)
        except np.linalg.LinAlgError:
            log.exception("the static key could not be fitted; it begins anew with the next texts")
            self._seen = 0
            return
        # From here on others sign, and nobody observes.
        self.ready = True
        self._features = self._rows = np.zeros((0, 0), np.float32)


def fitted(features: NDArray[np.float64], rows: Rows, dims: int) -> Signature:
    """The map float32 [h + 1, dims] from ``features`` [n, h + 1], the last of which is 1, to the principal directions
    of ``rows`` [n, d]. Raises LinAlgError."""
    squares = features.T @ features
    # The ridge is measured on the features' spread about their mean: a common offset is the intercept's business.
    n = squares[-1, -1]
    mean = squares[-1, :-1] / n
    spread = float((np.diag(squares)[:-1] / n - mean * mean).mean())
    ridge = _RIDGE * n * max(spread, 1e-12) * np.eye(len(squares))
    ridge[-1, -1] = 1e-9 * n
    full = np.linalg.solve(squares + ridge, features.T @ rows.astype(np.float64))
    # Eigenvectors of the second moment of the rows that it predicts, the largest last.
    principal = np.linalg.eigh(full.T @ squares @ full)[1][:, -dims:]
    found: Signature = (full @ principal).astype(np.float32)
    return found


class MinHashSigner:
    """One bit of each of 256 minima over the hashes of a text's token n-grams, as -1 and 1: the cosine of two estimates
    the Jaccard similarity of their sets of n-grams (Li and König, "b-Bit Minwise Hashing", WWW 2010)."""

    name = "minhash"
    # Likewise from 0.66 up.
    least = 0.5
    dims = _HASHES
    ready = True

    def __init__(self, grams: int = 2, seed: int = 0) -> None:
        """``grams``: n-grams of up to so many tokens."""
        self._grams = grams
        rng = np.random.default_rng(seed)
        # Multiply-shift: odd factors, upper half kept (Dietzfelbinger et al., Journal of Algorithms 1997).
        self._factors = (rng.integers(0, 2**63, _HASHES, np.uint64) << np.uint64(1)) | np.uint64(1)
        self._offsets = rng.integers(0, 2**63, _HASHES, np.uint64)

    def observe(self, ids: Sequence[int], row: Signature) -> bool:
        """Nothing is learned."""
        return False

    def sign(self, ids: Sequence[int]) -> Signature:
        row = np.asarray(ids, np.uint64) + np.uint64(1)
        shingles, gram = [row], row
        for size in range(2, self._grams + 1):
            gram = gram[:-1] * _ODD + row[size - 1 :]
            shingles.append(gram)
        hashed = np.concatenate(shingles)
        # Folded, so that the low bits of a sum depend on all of it.
        hashed = (hashed ^ (hashed >> np.uint64(29))) * _ODD
        minima = ((self._factors[:, None] * hashed + self._offsets[:, None]) >> np.uint64(32)).min(axis=1)
        return np.where(minima & np.uint64(1), np.float32(1), np.float32(-1))


class GivenSigner:
    """For signatures that are handed in with each look-up: rows of a smaller model."""

    name = "given"
    least = 0.5
    ready = True

    def __init__(self, dims: int) -> None:
        """``dims`` of the smaller model's rows."""
        self.dims = dims

    def observe(self, ids: Sequence[int], row: Signature) -> bool:
        """Nothing is learned."""
        return False

    def sign(self, ids: Sequence[int]) -> Signature:
        """Raises ValueError: it must be handed in."""
        raise ValueError("the signature of a smaller model must be handed in with the look-up")
