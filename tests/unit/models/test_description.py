"""The list of tensors that a description stands for."""

from __future__ import annotations

import pytest

from tandem.models.description import EncoderDescription, LayerSpec, NormKind, NormPlacement, Positions, tensor_shapes
from tandem.models.sentence_files import DenseSpec
from tests.tiny_models import tiny

MODERN = {
    "positions": Positions.ROTARY,
    "token_types": 0,
    "norm_placement": NormPlacement.PRE,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "gated": True,
}


def layer_parts(description: EncoderDescription, index: int = 0) -> set[str]:
    prefix = f"layers.{index}."
    return {name.removeprefix(prefix) for name in tensor_shapes(description) if name.startswith(prefix)}


def test_a_bert_layer_has_biases_everywhere_and_a_plain_mlp() -> None:
    linears = {"attention.query", "attention.key", "attention.value", "attention.out", "mlp.up", "mlp.down"}
    norms = {"attention.norm", "mlp.norm"}
    assert layer_parts(tiny()) == {f"{part}.{kind}" for part in linears | norms for kind in ("weight", "bias")}


def test_a_modernbert_layer_has_a_gate_and_no_bias() -> None:
    description = tiny((LayerSpec(attention_norm=False), LayerSpec()), MODERN)
    expected = {
        "attention.query.weight",
        "attention.key.weight",
        "attention.value.weight",
        "attention.out.weight",
        "mlp.gate.weight",
        "mlp.up.weight",
        "mlp.down.weight",
        "mlp.norm.weight",
    }
    assert layer_parts(description, 0) == expected
    assert layer_parts(description, 1) == expected | {"attention.norm.weight"}
    assert {"final.norm.weight", "embeddings.norm.weight"} <= tensor_shapes(description).keys()


def test_shapes_follow_the_sizes() -> None:
    shapes = tensor_shapes(tiny(changes={"position_offset": 2, "relative_buckets": 32}))
    assert shapes["embeddings.token.weight"] == (50, 16)
    assert shapes["embeddings.position.weight"] == (26, 16)
    assert shapes["embeddings.type.weight"] == (2, 16)
    assert shapes["relative.weight"] == (32, 2)
    assert shapes["layers.1.mlp.up.weight"] == (24, 16)
    assert shapes["layers.1.mlp.down.weight"] == (16, 24)


def test_rms_norm_has_no_bias() -> None:
    assert "embeddings.norm.bias" not in tensor_shapes(tiny(changes={"norm_kind": NormKind.RMS}))


@pytest.mark.parametrize(
    ("changes", "dims"),
    [
        ({}, 16),
        ({"pooling": ("cls", "mean")}, 32),
        ({"dense": (DenseSpec(path="2_Dense", in_features=16, out_features=5),)}, 5),
    ],
)
def test_dims_of_a_pooled_row(changes: dict[str, object], dims: int) -> None:
    assert tiny(changes=changes).dims == dims


def test_dense_heads_are_part_of_the_tensors() -> None:
    head = DenseSpec(path="2_Dense", in_features=16, out_features=5, bias=False)
    shapes = tensor_shapes(tiny(changes={"dense": (head,)}))
    assert shapes["dense.0.weight"] == (5, 16)
    assert "dense.0.bias" not in shapes
