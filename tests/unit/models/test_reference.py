"""The numpy reference: what can be worked out by hand. Its agreement with transformers is in tests/golden."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.models.description import LayerSpec, NormKind, NormPlacement, Positions
from tandem.models.reference import erf, forward
from tandem.models.sentence_files import DenseSpec
from tandem.types import Output, TokenBatch
from tests.tiny_models import random_weights, tiny

TEXTS = [[3, 7, 11, 4, 9], [5], [8, 2, 6]]


def batch(texts: list[list[int]], output: Output = Output.POOLED, skips: list[int] | None = None) -> TokenBatch:
    width = max(map(len, texts))
    ids = np.array([text + [0] * (width - len(text)) for text in texts], np.int32)
    lengths = np.array([len(text) for text in texts], np.int32)
    return TokenBatch(ids, lengths, None if skips is None else np.array(skips, np.int32), output)


def rows(changes: dict[str, Any], texts: list[list[int]], skips: list[int] | None = None) -> NDArray[np.float32]:
    description = tiny(changes=changes)
    return forward(description, random_weights(description), batch(texts, skips=skips))


def states(changes: dict[str, Any], texts: list[list[int]]) -> NDArray[np.float32]:
    description = tiny(changes=changes)
    return forward(description, random_weights(description), batch(texts, Output.TOKENS))


def test_a_text_does_not_depend_on_its_company() -> None:
    together = rows({}, TEXTS)
    alone = np.concatenate([rows({}, [text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)


def test_token_states_are_zero_past_the_length() -> None:
    found = states({}, TEXTS)
    assert found.shape == (3, 5, 16)
    assert not found[1, 1:].any()
    assert found[1, 0].any()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cls", lambda x: x[0]),
        ("last", lambda x: x[-1]),
        ("max", lambda x: x.max(axis=0)),
        ("mean", lambda x: x.mean(axis=0)),
        ("mean_sqrt_len", lambda x: x.sum(axis=0) / math.sqrt(5)),
        ("weightedmean", lambda x: (x * np.array([[1], [2], [3], [4], [5]])).sum(axis=0) / 15),
    ],
)
def test_pooling_modes(mode: str, expected: Any) -> None:
    text = TEXTS[:1]
    np.testing.assert_allclose(rows({"pooling": (mode,)}, text)[0], expected(states({}, text)[0]), rtol=1e-5)


def test_several_poolings_stand_side_by_side() -> None:
    both = rows({"pooling": ("cls", "mean")}, TEXTS)
    np.testing.assert_array_equal(both, np.hstack([rows({"pooling": (m,)}, TEXTS) for m in ("cls", "mean")]))


@pytest.mark.parametrize(("mode", "kept"), [("mean", slice(2, None)), ("cls", slice(2, 3)), ("last", slice(-1, None))])
def test_a_skipped_prompt_is_seen_and_not_pooled(mode: str, kept: slice) -> None:
    found = rows({"pooling": (mode,)}, TEXTS[:1], skips=[2])
    np.testing.assert_allclose(found[0], states({}, TEXTS[:1])[0, kept].mean(axis=0), rtol=1e-5)


def test_a_prompt_that_fills_its_text_leaves_the_last_token() -> None:
    np.testing.assert_array_equal(rows({}, TEXTS[:1], skips=[9]), rows({"pooling": ("last",)}, TEXTS[:1]))


def test_weightedmean_keeps_the_places_that_tokens_had_with_their_prompt() -> None:
    own = states({}, TEXTS[:1])[0, 3:]
    expected = (own * np.array([[4], [5]])).sum(axis=0) / 9
    np.testing.assert_allclose(rows({"pooling": ("weightedmean",)}, TEXTS[:1], skips=[3])[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("activation", "apply"),
    [("identity", lambda x: x), ("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))],
)
def test_dense_heads(activation: str, apply: Any) -> None:
    head = DenseSpec(path="2_Dense", in_features=16, out_features=3, activation=activation)
    weights = random_weights(tiny(changes={"dense": (head,)}))
    expected = apply(rows({}, TEXTS) @ weights["dense.0.weight"].T + weights["dense.0.bias"])
    np.testing.assert_allclose(rows({"dense": (head,)}, TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_a_window_keeps_far_tokens_out() -> None:
    """With one layer and a window of 1, the first token's state can not know the fourth."""
    description = tiny((LayerSpec(window=1),))
    weights = random_weights(description)
    one, other = (forward(description, weights, batch([[3, 7, 11, last]], Output.TOKENS)) for last in (4, 30))
    np.testing.assert_array_equal(one[0, :2], other[0, :2])
    assert not np.allclose(one[0, 2], other[0, 2])


def test_causal_attention_looks_back_only() -> None:
    description = tiny(changes={"causal": True})
    weights = random_weights(description)
    one, other = (forward(description, weights, batch([[3, 7, last]], Output.TOKENS)) for last in (4, 30))
    np.testing.assert_array_equal(one[0, :2], other[0, :2])


def test_rotary_positions_are_relative() -> None:
    """Two equal tokens attend alike wherever they stand: without other positions, a text of one word is one state."""
    description = tiny((LayerSpec(rope_theta=10000.0),), {"positions": Positions.ROTARY})
    found = forward(description, random_weights(description), batch([[7] * 6], Output.TOKENS))
    np.testing.assert_allclose(found[0], np.broadcast_to(found[0, 0], (6, 16)), rtol=1e-5, atol=1e-6)


def test_order_counts_with_every_kind_of_position() -> None:
    rotary = tiny((LayerSpec(rope_theta=10000.0),), {"positions": Positions.ROTARY, "token_types": 0})
    for description in (tiny(), rotary):
        weights = random_weights(description)
        one, other = (forward(description, weights, batch([text])) for text in ([3, 7, 11], [11, 7, 3]))
        assert not np.allclose(one, other, atol=1e-3)


def test_pre_norm_ends_in_its_final_norm() -> None:
    description = tiny(changes={"norm_placement": NormPlacement.PRE})
    weights = random_weights(description)
    weights["final.norm.weight"] = np.zeros(16, np.float32)
    weights["final.norm.bias"] = np.arange(16, dtype=np.float32)
    found = forward(description, weights, batch(TEXTS))
    np.testing.assert_allclose(found, np.tile(np.arange(16, dtype=np.float32), (3, 1)), rtol=1e-6)


def test_rms_norm_gives_rows_of_one_size() -> None:
    description = tiny(changes={"norm_kind": NormKind.RMS, "norm_bias": False})
    weights = random_weights(description)
    weights["layers.1.mlp.norm.weight"] = np.ones(16, np.float32)
    found = forward(description, weights, batch(TEXTS[:1], Output.TOKENS))[0]
    np.testing.assert_allclose((found * found).mean(axis=-1), np.ones(5), rtol=1e-5)


def test_erf_is_right_to_float32() -> None:
    x = np.linspace(-6, 6, 2001).astype(np.float32)
    np.testing.assert_allclose(erf(x), [math.erf(value) for value in x], atol=1.3e-7)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_large_values_do_not_overflow(activation: str) -> None:
    description = tiny(changes={"activation": activation})
    weights = {name: tensor * 100 for name, tensor in random_weights(description).items()}
    assert np.isfinite(forward(description, weights, batch(TEXTS))).all()
