"""Signatures: what the near-duplicate tier finds a text's neighbours by, far cheaper than the model's own row.

A signature is a float32 vector, and near means a high cosine, so one kind of index serves all. Three were raced
(``bench/near_duplicates.py``): the tokens' rows of the model's own table, mapped onto the model's rows; one-bit MinHash
over token n-grams; and the row of a smaller model, which is computed elsewhere and handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tandem.types import Rows

Signature = NDArray[np.float32]

# MinHash: 256 bits estimate a Jaccard similarity with a standard deviation of at most 1/16.
_HASHES = 256
_ODD = np.uint64(0x9E3779B97F4A7C15)
# Ridge, as a share of the mean squared feature. Between 0.1 and 1 nothing changes that shows.
_RIDGE = 0.3
_AT_ONCE = 64


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
    be computed anyway. Without it the mean is a rough key: on banking77, at cosine 0.8 and 5 % error, 13 % of texts
    could be served by the plain mean and 32 % by the mapped one, guards included.
    """

    name = "static"
    # At a bound of 0.8 and 5 % error the best thresholds in hindsight were 0.90 to 0.93.
    least = 0.75

    def __init__(self, table: Rows, row_dims: int, *, dims: int = 128, fit_after: int = 2000) -> None:
        """``table`` float32 [vocabulary, h], which is held and not copied; ``row_dims``: those of the model's rows.
        Signatures keep the ``dims`` principal directions of what the map gives: a shorter search, and no worse."""
        self.dims = min(dims, row_dims)
        self.ready = False
        self._table = table
        self._left = max(1, fit_after)
        width = table.shape[1] + 1
        # Rows of the table as the map gives them, each when it is first met: a signature is then a mean of short rows,
        # and of a vocabulary of 250,000 only what is used takes memory.
        self._mapped = np.zeros((len(table), self.dims), np.float32)
        self._is_mapped = bytearray(len(table))
        # Of the texts only these sums are kept: X'X and X'Y, with a last feature of 1; and a few that wait to be added,
        # as many at once cost a tenth of one at a time.
        self._squares = np.zeros((width, width))
        self._products = np.zeros((width, row_dims))
        self._waiting: list[tuple[Signature, Signature]] = []
        self._map = np.zeros((width, self.dims), np.float32)

    def observe(self, ids: Sequence[int], row: Signature) -> bool:
        if self.ready:
            return False
        length = float(np.linalg.norm(row))
        self._waiting.append((self._features(ids), row / length if length else row))
        self._left -= 1
        if self._left == 0 or len(self._waiting) == _AT_ONCE:
            self._add_waiting()
        if self._left == 0:
            self._fit()
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

    def _features(self, ids: Sequence[int]) -> Signature:
        features = np.ones(self._table.shape[1] + 1, np.float32)
        np.add.reduce(self._table[np.array(ids, np.intp)], axis=0, out=features[:-1])
        features[:-1] /= len(ids)
        return features

    def _add_waiting(self) -> None:
        features = np.array([one for one, _ in self._waiting], np.float64)
        self._squares += features.T @ features
        self._products += features.T @ np.array([row for _, row in self._waiting], np.float64)
        self._waiting = []

    def _fit(self) -> None:
        # The ridge is measured on the features' spread about their mean: a common offset is the intercept's business.
        n = self._squares[-1, -1]
        mean = self._squares[-1, :-1] / n
        spread = float((np.diag(self._squares)[:-1] / n - mean * mean).mean())
        ridge = _RIDGE * n * max(spread, 1e-12) * np.eye(len(self._squares))
        ridge[-1, -1] = 1e-9 * n
        full = np.linalg.solve(self._squares + ridge, self._products)
        # Eigenvectors of the second moment of the rows that it predicts, the largest last.
        principal = np.linalg.eigh(full.T @ self._squares @ full)[1][:, -self.dims :]
        self._map = (full @ principal).astype(np.float32)
        self._squares = self._products = np.zeros((0, 0))
        self.ready = True


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
