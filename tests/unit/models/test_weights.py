"""A folder's tensors under canonical names, in every form that folders come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.description import EncoderDescription, LayerSpec, NormPlacement, Positions, tensor_shapes
from tandem.models.folder import ModelFolder
from tandem.models.sentence_files import DenseSpec
from tandem.models.weight_names import TABLES, source_of
from tandem.models.weights import load_weights
from tests.tiny_models import random_weights, tiny, write_safetensors

Tensors: TypeAlias = dict[str, NDArray[Any]]

MODERN = {
    "family": "modernbert",
    "positions": Positions.ROTARY,
    "token_types": 0,
    "norm_placement": NormPlacement.PRE,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "gated": True,
}


def as_published(description: EncoderDescription, canonical: Tensors, prefix: str = "") -> Tensors:
    """The tensors under their family's names, fused where the family fuses."""
    parts: dict[str, dict[int, NDArray[Any]]] = {}
    for name, tensor in canonical.items():
        source = source_of(TABLES[description.family], name)
        parts.setdefault(prefix + source.name, {})[source.part] = tensor
    return {name: np.concatenate([found[part] for part in sorted(found)]) for name, found in parts.items()}


def folder(path: Path) -> ModelFolder:
    return ModelFolder(path=path, name="mine", source="folder")


@pytest.fixture
def description() -> EncoderDescription:
    return tiny()


@pytest.fixture
def canonical(description: EncoderDescription) -> Tensors:
    return dict(random_weights(description))


def assert_same(folder_path: Path, description: EncoderDescription, expected: Tensors) -> None:
    weights = load_weights(folder(folder_path), description)
    assert set(weights) == set(expected) == set(tensor_shapes(description))
    for name, tensor in expected.items():
        np.testing.assert_array_equal(weights[name], tensor, err_msg=name)


@pytest.mark.parametrize("prefix", ["", "bert.", "model.", "0.auto_model."])
def test_any_prefix_is_found(tmp_path: Path, description: EncoderDescription, canonical: Tensors, prefix: str) -> None:
    write_safetensors(tmp_path / "model.safetensors", as_published(description, canonical, prefix))
    assert_same(tmp_path, description, canonical)


def test_other_tensors_are_left_alone(tmp_path: Path, description: EncoderDescription, canonical: Tensors) -> None:
    others: Tensors = {"embeddings.position_ids": np.arange(24), "pooler.dense.weight": np.ones((2, 2), np.float32)}
    write_safetensors(tmp_path / "model.safetensors", as_published(description, canonical) | others)
    assert_same(tmp_path, description, canonical)


def test_fused_tensors_are_cut(tmp_path: Path) -> None:
    description = tiny((LayerSpec(attention_norm=False), LayerSpec()), MODERN)
    canonical = dict(random_weights(description))
    published = as_published(description, canonical, "model.")
    assert published["model.layers.0.attn.Wqkv.weight"].shape == (48, 16)
    write_safetensors(tmp_path / "model.safetensors", published)
    assert_same(tmp_path, description, canonical)


def test_norms_under_their_old_names(tmp_path: Path, description: EncoderDescription, canonical: Tensors) -> None:
    published = as_published(description, canonical, "bert.")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in published.items()
    }
    assert old.keys() != published.keys()
    write_safetensors(tmp_path / "model.safetensors", old)
    assert_same(tmp_path, description, canonical)


def test_shards_are_read_through_their_index(
    tmp_path: Path, description: EncoderDescription, canonical: Tensors
) -> None:
    published = as_published(description, canonical)
    names = list(published)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        write_safetensors(tmp_path / shard, {name: published[name] for name in held})
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert_same(tmp_path, description, canonical)


def test_a_missing_shard_is_named(tmp_path: Path, description: EncoderDescription) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelBroken, match=r"model-00001-of-00001\.safetensors"):
        load_weights(folder(tmp_path), description)


@pytest.mark.parametrize("weight_map", [None, [], {"a": 3}])
def test_an_index_that_makes_no_sense_is_broken(
    tmp_path: Path, description: EncoderDescription, weight_map: object
) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    with pytest.raises(ModelBroken, match=r"index\.json: .*weight_map"):
        load_weights(folder(tmp_path), description)


def test_dense_heads_lie_in_their_own_folders(tmp_path: Path) -> None:
    head = DenseSpec(path="2_Dense", in_features=16, out_features=5)
    description = tiny(changes={"dense": (head,)})
    canonical = dict(random_weights(description))
    encoder = {name: tensor for name, tensor in canonical.items() if not name.startswith("dense.")}
    write_safetensors(tmp_path / "model.safetensors", as_published(description, encoder))
    own = {"linear.weight": canonical["dense.0.weight"], "linear.bias": canonical["dense.0.bias"]}
    write_safetensors(tmp_path / "2_Dense" / "model.safetensors", own)
    assert_same(tmp_path, description, canonical)


def test_a_dense_head_without_its_bias_is_refused(tmp_path: Path) -> None:
    description = tiny(changes={"dense": (DenseSpec(path="2_Dense", in_features=16, out_features=5),)})
    write_safetensors(tmp_path / "model.safetensors", as_published(description, dict(random_weights(tiny()))))
    write_safetensors(tmp_path / "2_Dense" / "model.safetensors", {"linear.weight": np.ones((5, 16), np.float32)})
    with pytest.raises(ModelUnsupported, match=r"2_Dense: linear\.bias"):
        load_weights(folder(tmp_path), description)


Damage: TypeAlias = Callable[[Tensors], object]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda t: t.pop("encoder.layer.1.output.dense.bias"), r"1 tensors .* encoder\.layer\.1\.output\.dense\.bias"),
        (lambda t: t.pop("embeddings.word_embeddings.weight"), r"no tensor is named embeddings\.word_embeddings"),
        (
            lambda t: t.update({"embeddings.LayerNorm.bias": np.ones(17, np.float32)}),
            r"'embeddings\.LayerNorm\.bias' has shape \[17\], config\.json says \[16\]",
        ),
        (
            lambda t: t.update({"encoder.layer.0.intermediate.dense.bias": np.arange(24)}),
            r"'encoder\.layer\.0\.intermediate\.dense\.bias' is stored as I64; supported are F64, F32, F16, BF16",
        ),
        (
            lambda t: t.update({"query.embeddings.word_embeddings.weight": np.ones((50, 16), np.float32)}),
            r"holds several encoders",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, description: EncoderDescription, canonical: Tensors, damage: Damage, reason: str
) -> None:
    published = as_published(description, canonical)
    damage(published)
    write_safetensors(tmp_path / "model.safetensors", published)
    with pytest.raises(ModelUnsupported, match=reason):
        load_weights(folder(tmp_path), description)


def test_pickles_are_not_read(tmp_path: Path, description: EncoderDescription) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ModelUnsupported, match=r"neither model\.safetensors .* never from pickles"):
        load_weights(folder(tmp_path), description)


def test_a_long_list_of_missing_tensors_is_cut(tmp_path: Path, description: EncoderDescription) -> None:
    only = {"embeddings.word_embeddings.weight": np.ones((50, 16), np.float32)}
    write_safetensors(tmp_path / "model.safetensors", only)
    with pytest.raises(ModelUnsupported) as refused:
        load_weights(folder(tmp_path), description)
    assert len(str(refused.value)) < 700


def test_names_of_every_table_are_canonical() -> None:
    known = {name.rpartition(".")[0] for name in tensor_shapes(tiny((LayerSpec(),), MODERN))}
    known |= {name.rpartition(".")[0] for name in tensor_shapes(tiny(changes={"relative_buckets": 32}))}
    stems = {name.removeprefix("layers.0.") for name in known}
    for family, table in TABLES.items():
        assert set(table) <= stems, family
