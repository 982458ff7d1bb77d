"""The ONNX graph against the numpy reference, on ONNX Runtime, over the whole space of descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tandem.backends.base import INPUTS
from tandem.backends.graph import build_onnx, input_names, write_onnx
from tandem.backends.quiet_onnxruntime import ort
from tandem.models.description import (
    Activation,
    EncoderDescription,
    LayerSpec,
    NormKind,
    NormPlacement,
    Positions,
)
from tandem.models.reference import forward
from tandem.models.sentence_files import DenseSpec
from tandem.types import Output, TokenBatch
from tests.tiny_models import random_weights, tiny

MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last")


def make_batch(lengths: list[int], seed: int = 0, output: Output = Output.POOLED) -> TokenBatch:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 50, (len(lengths), max(lengths))).astype(np.int32)
    skips = rng.integers(0, 6, len(lengths)).astype(np.int32)
    return TokenBatch(ids, np.array(lengths, np.int32), skips, output)


def run(model: bytes | str, description: EncoderDescription, batch: TokenBatch) -> NDArray[np.float32]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {name: INPUTS[name](batch) for name in input_names(description, batch.output)}
    rows: NDArray[np.float32] = session.run(["rows"], feeds)[0]
    return rows


def assert_agrees(description: EncoderDescription, batch: TokenBatch) -> None:
    weights = random_weights(description)
    found = run(build_onnx(description, weights, batch.output), description, batch)
    expected = forward(description, weights, batch if description.skips_prompt else without_skips(batch))
    if batch.output is Output.TOKENS:
        real = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
        found, expected = found[real], expected[real]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def without_skips(batch: TokenBatch) -> TokenBatch:
    return TokenBatch(batch.ids, batch.lengths, None, batch.output)


@st.composite
def descriptions(draw: st.DrawFn) -> EncoderDescription:
    """Any mix of the blocks, those that no family uses included: the lowering must not care."""
    positions = draw(st.sampled_from(Positions))
    thetas = st.sampled_from([100.0, 10000.0]) if positions is Positions.ROTARY else st.none()
    pre = draw(st.booleans())
    layer = st.builds(
        LayerSpec,
        window=st.sampled_from([None, 1, 3]),
        rope_theta=thetas,
        attention_norm=st.booleans() if pre else st.just(True),
    )
    layers = draw(st.lists(layer, min_size=1, max_size=3))
    flags = ("norm_bias", "gated", "attention_bias", "mlp_bias", "causal", "skips_prompt")
    changes: dict[str, Any] = {flag: draw(st.booleans()) for flag in flags} | {
        "positions": positions,
        "position_offset": draw(st.sampled_from([0, 2])),
        "relative_buckets": draw(st.sampled_from([0, 32])),
        "token_types": draw(st.sampled_from([0, 2])),
        "norm_kind": draw(st.sampled_from(NormKind)),
        "norm_placement": NormPlacement.PRE if pre else NormPlacement.POST,
        "activation": draw(st.sampled_from(Activation)),
        "pooling": tuple(draw(st.lists(st.sampled_from(MODES), min_size=1, max_size=3))),
    }
    return tiny(tuple(layers), changes)


@given(
    description=descriptions(),
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    output=st.sampled_from(Output),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_description_is_lowered_right(description: EncoderDescription, lengths: list[int], output: Output) -> None:
    assert_agrees(description, make_batch(lengths, output=output))


@pytest.mark.parametrize("skips_prompt", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_every_pooling(mode: str, skips_prompt: bool) -> None:
    assert_agrees(tiny(changes={"pooling": (mode,), "skips_prompt": skips_prompt}), make_batch([24, 1, 7, 5]))


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("norm_placement", list(NormPlacement))
@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        (LayerSpec(), {}),
        (LayerSpec(), {"relative_buckets": 32}),
        (LayerSpec(), {"causal": True}),
        (LayerSpec(window=2, rope_theta=100.0), {"positions": Positions.ROTARY}),
    ],
)
def test_the_first_place_alone(
    layer: LayerSpec, changes: dict[str, Any], norm_placement: NormPlacement, output: Output
) -> None:
    described = tiny((layer, layer), changes | {"pooling": ("cls",), "norm_placement": norm_placement})
    assert_agrees(described, make_batch([24, 1, 7, 5], output=output))


@pytest.mark.parametrize("activation", ["identity", "tanh", "relu", "gelu"])
def test_every_dense_activation(activation: str) -> None:
    heads = (
        DenseSpec(path="2_Dense", in_features=16, out_features=7, activation=activation),
        DenseSpec(path="3_Dense", in_features=7, out_features=3, activation="identity", bias=False),
    )
    assert_agrees(tiny(changes={"dense": heads}), make_batch([5, 2]))


def test_a_batch_may_use_every_position() -> None:
    for offset in (0, 2):
        assert_agrees(tiny(changes={"position_offset": offset}), make_batch([24]))


@pytest.mark.parametrize("output", list(Output))
def test_the_graph_is_valid_and_says_its_shapes(output: Output) -> None:
    description = tiny(changes={"skips_prompt": True})
    model = onnx.load_from_string(build_onnx(description, random_weights(description), output))
    onnx.checker.check_model(model, full_check=True)
    inputs = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert inputs == dict.fromkeys(input_names(description, output), onnx.TensorProto.INT32)
    dims = [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == (["n", 16] if output is Output.POOLED else ["n", "s", 16])


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("skips_prompt", [False, True])
def test_every_input_is_read(output: Output, pooling: str, skips_prompt: bool) -> None:
    """Engines drop an input that nothing reads, and then know nothing of it when it is fed."""
    description = tiny(changes={"skips_prompt": skips_prompt, "pooling": (pooling,)})
    model = onnx.load_from_string(build_onnx(description, random_weights(description), output))
    read = {name for node in model.graph.node for name in node.input}
    names = input_names(description, output)
    assert ("skips" in names) is (skips_prompt and output is Output.POOLED)
    assert {value.name for value in model.graph.input} == set(names) <= read


def test_weights_beside_the_model_are_the_same_weights(tmp_path: Path) -> None:
    description = tiny(changes={"vocab_size": 400})
    weights = random_weights(description)
    path, data = write_onnx(description, weights, tmp_path / "encoder.onnx")
    batch = make_batch([9, 4])
    beside = run(str(path), description, batch)
    np.testing.assert_array_equal(beside, run(build_onnx(description, weights), description, batch))
    assert data.parent == path.parent
    assert data.stat().st_size >= weights["embeddings.token.weight"].nbytes
    assert path.stat().st_size < 200_000


def test_large_tensors_start_at_page_boundaries(tmp_path: Path) -> None:
    description = tiny(changes={"vocab_size": 401, "intermediate": 131})
    path, _ = write_onnx(description, random_weights(description), tmp_path / "encoder.onnx")
    model = onnx.load(path, load_external_data=False)
    offsets = [int(entry.value) for t in model.graph.initializer for entry in t.external_data if entry.key == "offset"]
    assert offsets
    assert all(offset % 4096 == 0 for offset in offsets)
