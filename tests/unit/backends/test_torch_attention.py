"""Both ways of attention against the reference, for every kind of encoder, and when which is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tandem.backends.torch_attention import Attention, GroupedAttention, similar
from tandem.backends.torch_module import feed_of
from tandem.backends.torch_packing import Frame, fill, pack
from tandem.backends.torch_varlen import VarlenAttention, VarlenCall, choose_attention, trial, why_not_varlen
from tandem.models.description import EncoderDescription
from tandem.models.reference import forward
from tests.tiny_models import random_weights, tiny
from tests.torch_encoders import CPU, ENCODERS, RELATIVE, flat_batch, grouped, loop_call, one_forward

CASES: dict[str, tuple[EncoderDescription, Callable[[EncoderDescription], Attention]]] = {
    **{f"{name}, groups": (d, grouped) for name, d in ENCODERS.items()},
    **{f"{name}, one call": (d, lambda d: VarlenAttention(d, loop_call)) for name, d in ENCODERS.items()},
    "relative, groups": (RELATIVE, grouped),
}


@pytest.mark.parametrize("case", CASES)
def test_packed_is_what_the_reference_says(case: str) -> None:
    d, make = CASES[case]
    forward_pass = one_forward(d, make(d))
    weights = random_weights(d)

    @settings(max_examples=15)
    @given(st.lists(st.integers(1, 24), min_size=1, max_size=30), st.integers(0, 1000))
    def check(lengths: list[int], seed: int) -> None:
        batch = flat_batch(sorted(lengths), seed=seed, skips=d.skips_prompt)
        packed = pack(batch)
        frame = Frame(packed.tokens, packed.texts)
        block = np.empty(frame.size, np.int32)
        fill(block, frame, packed)
        with torch.inference_mode():
            rows = forward_pass.rows(feed_of(torch.from_numpy(block), frame), packed.longest, packed)
        np.testing.assert_allclose(rows.numpy(), forward(d, weights, batch), rtol=1e-3, atol=1e-4)

    check()


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200))
def test_groups_hold_every_text_and_little_padding(lengths: list[int]) -> None:
    ascending = np.array(sorted(lengths), np.int32)
    groups = similar(ascending)
    assert [start for start, _ in groups] == [0, *(stop for _, stop in groups[:-1])]
    assert groups[-1][1] == len(lengths)
    for start, stop in groups:
        assert ascending[stop - 1] <= max(16, ascending[start] / 0.8)


def released_2_10(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: Any = None,
) -> Tensor:
    assert cu_seq_q is cu_seq_k
    assert max_q == max_k
    return loop_call(torch.stack([query, key, value], 1), cu_seq_q, max_q, (-1, 0) if is_causal else (-1, -1))


def released_2_13(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    num_splits: int | None = None,
) -> Tensor:
    assert num_splits == 1
    return loop_call(torch.stack([query, key, value], 1), cu_seq_q, max_q, window_size)


def without_splits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    num_splits: int | None = None,
) -> Tensor:
    if num_splits is not None:
        raise RuntimeError("num_splits is not for this kernel")
    return released_2_13(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size=window_size, num_splits=1)


HEADS_OF_8 = {"heads": 2, "hidden": 16}
PLAIN = tiny(changes=HEADS_OF_8)


@pytest.mark.parametrize(
    ("function", "one_split", "says"),
    [
        (released_2_10, True, ""),
        (released_2_13, True, ""),
        (without_splits, True, "num_splits is not for this kernel"),
        (without_splits, False, ""),
    ],
)
def test_each_release_of_the_function_is_called_as_it_wants(
    function: Callable[..., Tensor], one_split: bool, says: str
) -> None:
    call = VarlenCall(function, one_split=one_split)
    assert says in trial(PLAIN, call, CPU, torch.float32)
    assert bool(says) == bool(trial(PLAIN, call, CPU, torch.float32))


def test_windows_are_tried_in_each_kind_of_layer() -> None:
    windowed = ENCODERS["rotary and windows"]
    assert trial(windowed, VarlenCall(released_2_13, one_split=True), CPU, torch.float32) == ""
    assert "wrong" in trial(
        windowed, lambda qkv, ends, longest, seen: loop_call(qkv, ends, longest, (-1, -1)), CPU, torch.float32
    )


def test_a_call_that_mixes_texts_is_not_believed() -> None:
    def mixing(qkv: Tensor, ends: Tensor, longest: int, seen: tuple[int, int]) -> Tensor:
        whole = torch.tensor([0, int(ends[-1])])
        return loop_call(qkv, whole, int(ends[-1]), seen)

    assert "wrong" in trial(PLAIN, mixing, CPU, torch.float32)


@pytest.mark.parametrize(
    ("changes", "dtype", "capability", "function", "says"),
    [
        ({}, torch.bfloat16, (9, 0), released_2_13, ""),
        ({}, torch.float16, (8, 0), released_2_10, ""),
        ({}, torch.bfloat16, None, released_2_13, "no CUDA device"),
        ({}, torch.float16, (7, 5), released_2_13, "capability 7.5"),
        ({}, torch.float32, (9, 0), released_2_13, "float32"),
        ({"relative_buckets": 8}, torch.bfloat16, (9, 0), released_2_13, "bias"),
        ({"heads": 4}, torch.bfloat16, (9, 0), released_2_13, "heads of 4"),
        ({"hidden": 528}, torch.bfloat16, (9, 0), released_2_13, "heads of 264"),
        ({"layers": ENCODERS["causal"].layers}, torch.bfloat16, (9, 0), released_2_10, "no windows"),
        ({}, torch.bfloat16, (9, 0), None, "has no torch.nn.attention.varlen"),
    ],
)
def test_when_the_one_call_does_not_serve(
    changes: dict[str, Any], dtype: torch.dtype, capability: tuple[int, int] | None, function: Any, says: str
) -> None:
    calls = [] if function is None else [VarlenCall(function, one_split=True)]
    why = why_not_varlen(tiny(changes=HEADS_OF_8 | changes), dtype, capability, calls)
    assert says in why
    assert bool(says) == bool(why)


def test_without_a_gpu_texts_are_grouped() -> None:
    assert isinstance(choose_attention(PLAIN, None, CPU, torch.bfloat16, None), GroupedAttention)


def test_what_fails_its_trial_is_not_taken() -> None:
    """As on a GPU, where the function is there and its kernel is not: here it runs on the CPU and says so."""
    assert isinstance(choose_attention(PLAIN, None, CPU, torch.bfloat16, (9, 0)), GroupedAttention)
