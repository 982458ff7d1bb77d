from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.backends.fake import FakeBackend
from tandem.backends.proof import BOUNDS, PROBE_TEXTS, probe_batch, prove, smallest_cosine
from tandem.types import Packing, Tier, TokenBatch
from tests.engines import MAX_TOKENS, text_tokenizer

RNG = np.random.default_rng(0)
ROWS: NDArray[np.float32] = RNG.standard_normal((4, 8)).astype(np.float32)


def test_the_worst_row_counts() -> None:
    turned = ROWS.copy()
    turned[2] = -turned[2]
    assert smallest_cosine(ROWS, ROWS) == pytest.approx(1.0)
    assert smallest_cosine(turned, ROWS) == pytest.approx(-1.0)
    assert smallest_cosine(ROWS * 7, ROWS) == pytest.approx(1.0)


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_what_is_not_finite_is_as_wrong_as_can_be(spoil: float) -> None:
    rows = ROWS.copy()
    rows[1, 1] = spoil
    assert smallest_cosine(rows, ROWS) == -1.0


def test_what_has_another_shape_too() -> None:
    assert smallest_cosine(ROWS[:, :4], ROWS) == -1.0
    assert smallest_cosine(ROWS[:2], ROWS) == -1.0
    assert smallest_cosine(ROWS, ROWS[:, :0]) == -1.0


def test_zeros_prove_nothing() -> None:
    assert smallest_cosine(np.zeros_like(ROWS), ROWS) == 0.0


def test_a_backend_holds_its_tiers_promise_or_not() -> None:
    backend, batch = FakeBackend(), probe_batch(text_tokenizer(), Packing.ONE_A_ROW)
    right = backend.run(batch)
    assert prove(backend, batch, right).holds
    noisy = right + 0.01 * np.abs(right).max() * RNG.standard_normal(right.shape).astype(np.float32)
    proof = prove(backend, batch, noisy)
    assert not proof.holds
    assert proof.bound == BOUNDS[Tier.FP32]


def test_the_probe_batch_has_padding_a_long_text_and_other_scripts() -> None:
    batch: TokenBatch = probe_batch(text_tokenizer(), Packing.ONE_A_ROW)
    assert len(batch.lengths) == len(PROBE_TEXTS)
    assert batch.lengths.min() < batch.lengths.max() <= MAX_TOKENS
    assert not all(text.isascii() for text in PROBE_TEXTS)
