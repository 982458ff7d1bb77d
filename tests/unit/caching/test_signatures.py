from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tandem.caching.near_duplicate import cosine_of
from tandem.caching.signatures import GivenSigner, MinHashSigner, StaticSigner


@pytest.mark.parametrize("grams", [1, 2, 3])
def test_minhash_estimates_the_jaccard_similarity(grams: int) -> None:
    signer, rng = MinHashSigner(grams), np.random.default_rng(1)
    errors = []
    for _ in range(200):
        one = rng.integers(0, 30_000, 20).tolist()
        other = one[: (cut := int(rng.integers(0, 21)))] + rng.integers(0, 30_000, 20 - cut).tolist()
        left, right = shingles(one, grams), shingles(other, grams)
        errors.append(cosine_of(signer.sign(one), signer.sign(other)) - len(left & right) / len(left | right))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 1.3 / 16


def shingles(ids: list[int], grams: int) -> set[tuple[int, ...]]:
    return {tuple(ids[i : i + size]) for size in range(1, grams + 1) for i in range(len(ids) - size + 1)}


def test_minhash_is_the_same_in_another_object_and_knows_order() -> None:
    one, other = MinHashSigner(), MinHashSigner()
    assert (one.sign([5, 6, 7]) == other.sign([5, 6, 7])).all()
    assert cosine_of(one.sign([5, 6, 7, 8]), one.sign([8, 7, 6, 5])) < 0.8
    assert one.sign([5]).shape == (one.dims,)
    assert (MinHashSigner(seed=1).sign([5]) != one.sign([5])).any()


def test_the_static_key_learns_the_map_from_tokens_to_rows() -> None:
    rng = np.random.default_rng(2)
    table = rng.standard_normal((100, 12)).astype(np.float32)
    truth = rng.standard_normal((12, 20)).astype(np.float32)
    signer = StaticSigner(table, 20, fit_after=300)
    texts = [rng.integers(0, 100, int(rng.integers(1, 12))).tolist() for _ in range(400)]
    rows = [table[ids].mean(axis=0) @ truth for ids in texts]
    made_ready = [signer.observe(ids, row) for ids, row in zip(texts, rows, strict=True)]
    assert made_ready.index(True) == 299
    assert sum(made_ready) == 1
    signed = [signer.sign(ids) for ids in texts[300:]]
    estimated = [cosine_of(one, other) for one, other in pairwise(signed)]
    true = [cosine_of(one, other) for one, other in pairwise(rows[300:])]
    assert np.corrcoef(estimated, true)[0, 1] > 0.9


def test_the_fit_can_be_done_elsewhere_while_texts_go_on() -> None:
    rng = np.random.default_rng(4)
    table = rng.standard_normal((50, 6)).astype(np.float32)
    jobs: list[Callable[[], None]] = []
    later = StaticSigner(table, 8, fit_after=20, run=jobs.append)
    soon = StaticSigner(table, 8, fit_after=20)
    for _ in range(40):
        ids, row = rng.integers(0, 50, 5).tolist(), rng.standard_normal(8).astype(np.float32)
        assert not later.observe(ids, row)
        soon.observe(ids, row)
    (job,) = jobs
    job()
    assert later.ready
    assert not later.observe([1], np.ones(8, np.float32))
    assert later.sign([1, 2]) == pytest.approx(soon.sign([1, 2]))


def test_a_fit_that_fails_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(5)
    signer = StaticSigner(rng.standard_normal((50, 6)).astype(np.float32), 8, fit_after=20)
    with caplog.at_level(logging.ERROR):
        for _ in range(20):
            assert not signer.observe(rng.integers(0, 50, 5).tolist(), np.full(8, np.nan, np.float32))
    assert "begins anew" in caplog.text
    for _ in range(20):
        signer.observe(rng.integers(0, 50, 5).tolist(), rng.standard_normal(8).astype(np.float32))
    assert signer.ready


def test_equal_ids_have_equal_signatures_whatever_was_signed_before() -> None:
    rng = np.random.default_rng(6)
    table = rng.standard_normal((50, 6)).astype(np.float32)
    one, other = (StaticSigner(table, 8, fit_after=20) for _ in range(2))
    for _ in range(20):
        ids, row = rng.integers(0, 50, 5).tolist(), rng.standard_normal(8).astype(np.float32)
        one.observe(ids, row)
        other.observe(ids, row)
    first = one.sign([7, 8, 8])
    for token in range(50):
        one.sign([token])
    assert (one.sign([7, 8, 8]) == first).all()
    for token in range(50):
        other.sign([token])
    assert other.sign([7, 8, 8]) == pytest.approx(first, abs=1e-5)


def test_a_static_key_survives_rows_that_say_nothing() -> None:
    signer = StaticSigner(np.zeros((4, 3), np.float32), 5, fit_after=2)
    signer.observe([1], np.zeros(5, np.float32))
    assert signer.observe([2, 3], np.zeros(5, np.float32))
    assert np.isfinite(signer.sign([1])).all()


def test_a_smaller_models_row_must_be_given() -> None:
    with pytest.raises(ValueError, match="handed in"):
        GivenSigner(8).sign([1])
