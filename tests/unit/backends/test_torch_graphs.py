"""Buckets, and the forward pass over fixed memory: what a CUDA graph records, run as it is on this CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.backends.torch_graphs import MOST_BUCKETS, Bucket, GraphBook, StaticRun, choose_bucket, make_buckets
from tandem.backends.torch_packing import Packed, fill, pack
from tandem.models.reference import forward
from tandem.types import TokenBatch
from tests.tiny_models import random_weights
from tests.torch_encoders import CPU, ENCODERS, flat_batch, one_forward


def packed_of(texts: int, length: int) -> Packed:
    return pack(TokenBatch(np.zeros((texts, length), np.int32), np.full(texts, length, np.int32)))


@pytest.mark.parametrize("longest", [64, 256, 512, 8192])
def test_buckets_are_few_and_reach_from_64_to_16k(longest: int) -> None:
    buckets = make_buckets(16384, longest)
    assert len(buckets) <= MOST_BUCKETS
    assert (buckets[0].tokens, buckets[-1].tokens) == (64, 16384)
    assert all(bucket.longest <= min(longest, bucket.tokens) or bucket.longest <= 128 for bucket in buckets)


def test_no_tokens_no_buckets() -> None:
    assert make_buckets(0, 512) == ()
    assert choose_bucket((), packed_of(1, 8)) is None


@pytest.mark.parametrize(
    ("texts", "length", "expected"),
    [
        (1, 3, (64, 128)),
        (1, 64, (64, 128)),
        (4, 16, (64, 128)),
        (1, 300, (384, 384)),
        (8, 16, (128, 128)),
        (32, 16, (512, 128)),
        (2, 512, (1024, 512)),
        (16, 512, (8192, 512)),
    ],
)
def test_a_batch_goes_into_the_cheapest_bucket(texts: int, length: int, expected: tuple[int, int]) -> None:
    bucket = choose_bucket(make_buckets(16384, 512), packed_of(texts, length))
    assert bucket is not None
    assert (bucket.tokens, bucket.longest) == expected


def test_what_no_bucket_holds_without_waste_runs_as_it_is() -> None:
    buckets = make_buckets(16384, 512)
    assert choose_bucket(buckets, packed_of(64, 512)) is None, "too many tokens"
    assert choose_bucket(buckets, packed_of(500, 2)) is None, "more texts than twice its tokens have room for"


@given(st.lists(st.integers(1, 512), min_size=1, max_size=60))
def test_a_chosen_bucket_holds_the_batch(lengths: list[int]) -> None:
    packed = pack(flat_batch(lengths))
    bucket = choose_bucket(make_buckets(16384, 512), packed)
    if bucket is not None:
        assert packed.tokens <= bucket.tokens <= max(64, 2 * packed.tokens)
        assert packed.texts <= bucket.texts
        assert packed.longest <= bucket.longest


@pytest.mark.parametrize("encoder", ENCODERS)
def test_fixed_memory_gives_the_same_rows(encoder: str) -> None:
    """The padding's states are not numbers here, as they may be on a GPU, and what an earlier batch left is there."""
    d = ENCODERS[encoder]
    weights = random_weights(d)
    bucket = Bucket(96, 12, 24)
    run = StaticRun(bucket, CPU, one_forward(d).rows)

    @settings(max_examples=15)
    @given(st.lists(st.integers(1, 24), min_size=1, max_size=12).filter(lambda found: sum(found) <= 96), st.integers())
    def check(lengths: list[int], seed: int) -> None:
        batch = flat_batch(lengths, seed=abs(seed), skips=d.skips_prompt)
        block = np.empty(bucket.frame.size, np.int32)
        fill(block, bucket.frame, pack(batch))
        with torch.inference_mode():
            rows = run(torch.from_numpy(block))
        assert rows.shape == (bucket.texts, d.dims)
        np.testing.assert_allclose(rows[: len(lengths)], forward(d, weights, batch), rtol=1e-3, atol=1e-4)

    check()


def test_a_book_finds_the_run_of_a_batch() -> None:
    forward_pass = one_forward(ENCODERS["offset"])
    runs = [StaticRun(Bucket(tokens, 8, 24), CPU, forward_pass.rows) for tokens in (128, 64)]
    book = GraphBook(runs)
    assert book.find(packed_of(2, 20)) is runs[1]
    assert book.find(packed_of(5, 20)) is runs[0]
    assert book.find(packed_of(7, 20)) is None
