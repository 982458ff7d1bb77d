"""Configs of real models, and of those that must be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.description import Activation, NormPlacement, Positions
from tandem.models.families import describe, describe_folder, supported_model_types
from tandem.models.folder import ModelFolder
from tandem.models.sentence_files import DenseSpec, Pipeline

BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}
# As published with the model, by a transformers of 2024.
MODERNBERT_OLD: dict[str, Any] = {
    "model_type": "modernbert",
    "vocab_size": 50368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "norm_eps": 1e-05,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "pad_token_id": 50283,
}
# The same model saved again by transformers 5.
MODERNBERT_NEW: dict[str, Any] = {
    key: value
    for key, value in MODERNBERT_OLD.items()
    if key not in ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
} | {
    "layer_types": ["sliding_attention" if index % 3 else "full_attention" for index in range(22)],
    "rope_parameters": {
        "full_attention": {"rope_theta": 160000.0, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
}


def published(shared_data: Path, name: str) -> dict[str, Any]:
    path = shared_data / "model-configs" / name / "config.json"
    if not path.is_file():
        pytest.skip(f"no config at {path}")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "heads", "longest", "types"),
    [
        ("all-MiniLM-L6-v2", 6, 384, 12, 512, 2),
        ("bge-small-en-v1.5", 12, 384, 12, 512, 2),
        ("NoInstruct-small-Embedding-v0", 12, 384, 12, 512, 2),
        ("bge-m3", 24, 1024, 16, 8192, 1),
    ],
)
def test_published_configs(
    shared_data: Path, name: str, layers: int, hidden: int, heads: int, longest: int, types: int
) -> None:
    d = describe(published(shared_data, name))
    found = (len(d.layers), d.hidden, d.heads, d.max_positions, d.token_types)
    assert found == (layers, hidden, heads, longest, types)
    assert d.activation is Activation.GELU


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("stella_en_1.5B_v5", r"Python code .* modeling_qwen\.Qwen2Model"),
        ("lodestone-base-4096-v1", r"Python code .* bert_layers\.BertModel"),
    ],
)
def test_published_configs_with_remote_code_are_refused(shared_data: Path, name: str, reason: str) -> None:
    with pytest.raises(ModelUnsupported, match=reason):
        describe(published(shared_data, name))


def test_an_auto_map_without_a_model_is_no_remote_code() -> None:
    assert describe(BERT | {"auto_map": {"AutoTokenizer": "tokenization.Mine"}}) == describe(BERT)


@pytest.mark.parametrize(
    ("model_type", "pad", "offset"), [("roberta", 1, 2), ("xlm-roberta", 1, 2), ("camembert", 1, 2)]
)
def test_roberta_positions_start_after_the_padding_id(model_type: str, pad: int, offset: int) -> None:
    config = BERT | {"model_type": model_type, "pad_token_id": pad, "max_position_embeddings": 514}
    d = describe(config)
    assert (d.family, d.position_offset, d.max_positions) == ("roberta", offset, 512)


def test_mpnet_has_relative_buckets_and_no_token_types() -> None:
    d = describe(BERT | {"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 7})
    assert (d.relative_buckets, d.token_types, d.position_offset, d.max_positions) == (32, 0, 2, 512)


def test_distilbert_has_names_of_its_own() -> None:
    config = {
        "model_type": "distilbert",
        "dim": 32,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 64,
        "activation": "relu",
    }
    d = describe(config)
    assert (d.hidden, len(d.layers), d.heads, d.intermediate, d.token_types) == (32, 3, 4, 64, 0)
    assert (d.activation, d.norm_eps) == (Activation.RELU, 1e-12)


def test_modernbert_layers_alternate() -> None:
    d = describe(MODERNBERT_OLD)
    assert [layer.window for layer in d.layers[:5]] == [None, 64, 64, None, 64]
    assert [layer.rope_theta for layer in d.layers[:3]] == [160000.0, 10000.0, 10000.0]
    assert [layer.attention_norm for layer in d.layers[:3]] == [False, True, True]
    assert (d.positions, d.norm_placement, d.gated) == (Positions.ROTARY, NormPlacement.PRE, True)
    assert (d.norm_bias, d.attention_bias, d.mlp_bias) == (False, False, False)


def test_both_forms_of_a_modernbert_config_are_one_model() -> None:
    assert describe(MODERNBERT_NEW) == describe(MODERNBERT_OLD)


def test_a_null_local_theta_means_the_global_one() -> None:
    d = describe(MODERNBERT_OLD | {"local_rope_theta": None})
    assert {layer.rope_theta for layer in d.layers} == {160000.0}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("gelu", Activation.GELU),
        ("gelu_new", Activation.GELU_TANH),
        ("gelu_pytorch_tanh", Activation.GELU_TANH),
        ("relu", Activation.RELU),
        ("silu", Activation.SILU),
        ("swish", Activation.SILU),
    ],
)
def test_activations(written: str, expected: Activation) -> None:
    assert describe(BERT | {"hidden_act": written}).activation is expected


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BERT | {"model_type": "qwen2"}, r"'qwen2' is not supported; supported are bert, roberta"),
        ({}, r"model_type None is not supported"),
        (BERT | {"position_embedding_type": "relative_key"}, r"'relative_key' .* supported is 'absolute'"),
        (BERT | {"hidden_act": "quick_gelu"}, r"'quick_gelu' is not supported; supported are gelu"),
        (BERT | {"is_decoder": True}, r"is_decoder"),
        (BERT | {"model_type": "mpnet", "relative_attention_num_buckets": 64}, r"num_buckets is 64"),
        (MODERNBERT_OLD | {"layer_types": ["linear_attention"] * 22}, r"linear_attention"),
        (MODERNBERT_OLD | {"rope_scaling": {"rope_type": "yarn"}}, r"'yarn'"),
        (MODERNBERT_OLD | {"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, r"'linear'"),
    ],
)
def test_what_is_not_built_is_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelUnsupported, match=reason):
        describe(config)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BERT | {"hidden_size": "384"}, r"hidden_size"),
        (BERT | {"hidden_size": 100}, r"100 does not divide into 12 heads"),
        (BERT | {"num_hidden_layers": 0}, r">= 1 - at `\$\.num_hidden_layers`"),
        (BERT | {"num_attention_heads": -3}, r"num_attention_heads"),
        (BERT | {"model_type": "roberta", "max_position_embeddings": 2}, r"leaves no row"),
        (MODERNBERT_OLD | {"layer_types": ["full_attention"]}, r"1 layer_types for 22 layers"),
        (MODERNBERT_OLD | {"global_attn_every_n_layers": 0}, r"global_attn_every_n_layers"),
        (MODERNBERT_OLD | {"hidden_size": 36, "num_attention_heads": 12}, r"heads"),
    ],
)
def test_a_config_that_makes_no_sense_is_broken(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelBroken, match=reason):
        describe(config)


def test_the_pipeline_ends_the_description() -> None:
    head = DenseSpec(path="2_Dense", in_features=768, out_features=128)
    d = describe(BERT, Pipeline(pooling=("cls", "mean"), include_prompt=False, dense=(head,), normalize=True))
    assert (d.pooling, d.skips_prompt, d.dense, d.dims) == (("cls", "mean"), True, (head,), 128)


def test_a_dense_head_must_fit_what_it_is_given() -> None:
    head = DenseSpec(path="2_Dense", in_features=384, out_features=128)
    with pytest.raises(ModelBroken, match=r"2_Dense: .* takes 384 values but is given 768"):
        describe(BERT, Pipeline(pooling=("cls", "mean"), dense=(head,)))


def test_a_folder_is_described_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT), encoding="utf-8")
    folder = ModelFolder(path=tmp_path, name="mine", source="folder")
    assert describe_folder(folder) == describe(BERT)


def test_a_folder_without_a_config_is_broken(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"config\.json"):
        describe_folder(ModelFolder(path=tmp_path, name="mine", source="folder"))


def test_every_supported_model_type_is_named() -> None:
    assert {"bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert"} <= set(supported_model_types())
