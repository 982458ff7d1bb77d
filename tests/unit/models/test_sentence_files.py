"""sentence-transformers' side files, in every form that releases 2 to 6 wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.folder import ModelFolder
from tandem.models.lengths import UNSTATED_LIMIT, max_tokens
from tandem.models.sentence_files import DenseSpec, Pipeline, read_pipeline

OLD_ROOT = "sentence_transformers.models"
NEW_ROOT = "sentence_transformers.sentence_transformer.modules.pooling"


def make_folder(path: Path, files: dict[str, Any]) -> ModelFolder:
    for relative, content in files.items():
        target = path / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content), encoding="utf-8")
    return ModelFolder(path=path, name="test-model", source="folder")


def modules(*kinds: str, root: str = OLD_ROOT) -> list[dict[str, Any]]:
    """``Transformer`` at the top, the rest in numbered folders, as sentence-transformers lays them out."""
    return [
        {"idx": i, "name": str(i), "path": "" if i == 0 else f"{i}_{kind}", "type": f"{root}.{kind}"}
        for i, kind in enumerate(kinds)
    ]


def pooled(config: dict[str, Any], *more: str, files: dict[str, Any] | None = None) -> dict[str, Any]:
    """A folder's files: Transformer, Pooling with ``config``, then ``more`` modules."""
    return {"modules.json": modules("Transformer", "Pooling", *more), "1_Pooling/config.json": config} | (files or {})


MEAN = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True}, ("mean",)),
        ({"pooling_mode_max_tokens": True}, ("max",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        ({"pooling_mode_weightedmean_tokens": True}, ("weightedmean",)),
        ({"pooling_mode_lasttoken": True}, ("last",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}, ("mean",)),
        ({"word_embedding_dimension": 8}, ("mean",)),
        ({"embedding_dimension": 8, "pooling_mode": "cls"}, ("cls",)),
        ({"embedding_dimension": 8, "pooling_mode": "lasttoken"}, ("last",)),
        ({"embedding_dimension": 8, "pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len",)),
        ({"embedding_dimension": 8, "pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"embedding_dimension": 8, "pooling_mode": None}, ("mean",)),
        ({"pooling_mode": "max", "pooling_mode_mean_tokens": True}, ("max",)),
    ],
)
def test_both_pooling_forms(tmp_path: Path, config: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert read_pipeline(make_folder(tmp_path, pooled(config))).pooling == expected


def test_an_unknown_pooling_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match=r"'median'; supported are cls, max, mean"):
        read_pipeline(make_folder(tmp_path, pooled({"pooling_mode": "median"})))


@pytest.mark.parametrize("root", [OLD_ROOT, NEW_ROOT, "sentence_transformers.models.Pooling"])
def test_modules_go_by_the_last_component_of_their_type(tmp_path: Path, root: str) -> None:
    files = pooled(MEAN, "Normalize") | {"modules.json": modules("Transformer", "Pooling", "Normalize", root=root)}
    assert read_pipeline(make_folder(tmp_path, files)) == Pipeline(pooling=("mean",), normalize=True)


@pytest.mark.parametrize(("stated", "expected"), [(True, True), (False, False), (None, True)])
def test_include_prompt(tmp_path: Path, stated: bool | None, expected: bool) -> None:
    assert read_pipeline(make_folder(tmp_path, pooled(MEAN | {"include_prompt": stated}))).include_prompt is expected


def test_a_plain_transformers_folder_is_pooled_by_mean_and_not_normalised(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"config.json": {"model_type": "bert", "architectures": ["BertModel"]}})
    assert read_pipeline(folder) == Pipeline(pooling=("mean",), normalize=False)


def test_a_pooling_file_without_modules_counts(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"config.json": {}, "1_Pooling/config.json": {"pooling_mode_cls_token": True}})
    assert read_pipeline(folder).pooling == ("cls",)


@pytest.mark.parametrize(("is_causal", "expected"), [(None, ("last",)), (True, ("last",)), (False, ("mean",))])
def test_a_plain_causal_model_is_pooled_by_its_last_token(
    tmp_path: Path, is_causal: bool | None, expected: tuple[str, ...]
) -> None:
    config: dict[str, Any] = {"architectures": ["Qwen2ForCausalLM"]}
    if is_causal is not None:
        config["is_causal"] = is_causal
    assert read_pipeline(make_folder(tmp_path, {"config.json": config})).pooling == expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("torch.nn.modules.activation.Tanh", "tanh"),
        ("torch.nn.modules.linear.Identity", "identity"),
        ("torch.nn.modules.activation.ReLU", "relu"),
        ("torch.nn.modules.activation.GELU", "gelu"),
        (None, "identity"),
    ],
)
def test_dense(tmp_path: Path, stated: str | None, expected: str) -> None:
    dense = {"in_features": 8, "out_features": 4, "bias": False, "activation_function": stated}
    folder = make_folder(tmp_path, pooled(MEAN, "Dense", "Normalize", files={"2_Dense/config.json": dense}))
    pipeline = read_pipeline(folder)
    assert pipeline.dense == (
        DenseSpec(path="2_Dense", in_features=8, out_features=4, bias=False, activation=expected),
    )
    assert pipeline.normalize


def test_dense_defaults_are_bias_and_tanh(tmp_path: Path) -> None:
    files = {"2_Dense/config.json": {"in_features": 8, "out_features": 4}}
    (dense,) = read_pipeline(make_folder(tmp_path, pooled(MEAN, "Dense", files=files))).dense
    assert (dense.bias, dense.activation) == (True, "tanh")


def test_dense_heads_chain_and_dropout_is_nothing(tmp_path: Path) -> None:
    files = {
        "2_Dense/config.json": {"in_features": 8, "out_features": 6},
        "4_Dense/config.json": {"in_features": 6, "out_features": 4},
    }
    folder = make_folder(tmp_path, pooled(MEAN, "Dense", "Dropout", "Dense", files=files))
    assert [(d.in_features, d.out_features) for d in read_pipeline(folder).dense] == [(8, 6), (6, 4)]


@pytest.mark.parametrize(
    ("dense", "error", "message"),
    [
        ({"out_features": 4}, ModelBroken, "in_features and out_features are None and 4"),
        ({"in_features": 8, "out_features": True}, ModelBroken, "8 and True"),
        ({"in_features": 8, "out_features": 4, "use_residual": True}, ModelUnsupported, "use_residual"),
        (
            {"in_features": 8, "out_features": 4, "activation_function": "torch.nn.modules.activation.SiLU"},
            ModelUnsupported,
            "SiLU'; supported are Identity, Tanh, ReLU, GELU",
        ),
        (
            {"in_features": 8, "out_features": 4, "module_input_name": "token_embeddings"},
            ModelUnsupported,
            "module_input_name 'token_embeddings'",
        ),
    ],
)
def test_a_dense_that_tandem_does_not_build_is_named(
    tmp_path: Path, dense: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_pipeline(make_folder(tmp_path, pooled(MEAN, "Dense", files={"2_Dense/config.json": dense})))


def test_dense_heads_that_do_not_fit_each_other_are_broken(tmp_path: Path) -> None:
    files = {
        "2_Dense/config.json": {"in_features": 8, "out_features": 6},
        "3_Dense/config.json": {"in_features": 5, "out_features": 4},
    }
    with pytest.raises(ModelBroken, match="2_Dense gives 6, 3_Dense takes 5"):
        read_pipeline(make_folder(tmp_path, pooled(MEAN, "Dense", "Dense", files=files)))


@pytest.mark.parametrize("kind", ["CNN", "LSTM", "WordWeights", "LayerNorm", "Asym", "Router"])
def test_an_unknown_module_after_pooling_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelUnsupported, match=f"module '{kind}'; supported are Transformer, Pooling"):
        read_pipeline(make_folder(tmp_path, pooled(MEAN, kind)))


@pytest.mark.parametrize(
    "kinds", [("Transformer", "WeightedLayerPooling", "Pooling"), ("StaticEmbedding",), ("Asym", "Pooling"), ()]
)
def test_an_unknown_start_is_named(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    with pytest.raises(ModelUnsupported, match=", ".join(kinds) or "none"):
        read_pipeline(make_folder(tmp_path, {"modules.json": modules(*kinds)}))


def test_a_dense_after_normalize_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match="module 'Dense' after Normalize"):
        read_pipeline(make_folder(tmp_path, pooled(MEAN, "Normalize", "Dense")))


def test_the_models_own_code_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match=r"'custom_st\.Transformer' is the model's own code"):
        read_pipeline(make_folder(tmp_path, {"modules.json": modules("Transformer", "Pooling", root="custom_st")}))


def test_an_encoder_in_a_subfolder_is_refused(tmp_path: Path) -> None:
    files = pooled(MEAN)
    files["modules.json"][0]["path"] = "0_Transformer"
    with pytest.raises(ModelUnsupported, match="'0_Transformer'"):
        read_pipeline(make_folder(tmp_path, files))


@pytest.mark.parametrize("path", ["../elsewhere", "/etc"])
def test_a_module_path_does_not_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    files = pooled(MEAN)
    files["modules.json"][1]["path"] = path
    with pytest.raises(ModelBroken, match="leads out"):
        read_pipeline(make_folder(tmp_path / "model", files))


def test_a_missing_pooling_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"1_Pooling/config\.json: missing"):
        read_pipeline(make_folder(tmp_path, {"modules.json": modules("Transformer", "Pooling")}))


@pytest.mark.parametrize("entry", [{}, {"type": OLD_ROOT + ".Transformer"}, "Transformer"])
def test_a_module_without_type_or_path_is_broken(tmp_path: Path, entry: object) -> None:
    with pytest.raises(ModelBroken, match="needs a type and a path"):
        read_pipeline(make_folder(tmp_path, {"modules.json": [entry]}))


def test_prompts_lose_their_nulls(tmp_path: Path) -> None:
    stated = {"prompts": {"query": "query: ", "document": None, "raw": ""}, "default_prompt_name": "query"}
    pipeline = read_pipeline(make_folder(tmp_path, {"config_sentence_transformers.json": stated}))
    assert pipeline.prompts == {"query": "query: ", "document": "", "raw": ""}
    assert pipeline.default_prompt_name == "query"


@pytest.mark.parametrize("stated", [{}, {"prompts": None}, {"prompts": {}, "default_prompt_name": None}])
def test_no_prompts(tmp_path: Path, stated: dict[str, Any]) -> None:
    pipeline = read_pipeline(make_folder(tmp_path, {"config_sentence_transformers.json": stated}))
    assert (pipeline.prompts, pipeline.default_prompt_name) == ({}, None)


def test_the_built_in_prompts_may_be_the_default_without_being_written(tmp_path: Path) -> None:
    stated = {"prompts": {}, "default_prompt_name": "document"}
    pipeline = read_pipeline(make_folder(tmp_path, {"config_sentence_transformers.json": stated}))
    assert (pipeline.prompts, pipeline.default_prompt_name) == ({"document": ""}, "document")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"prompts": {"a": "x"}, "default_prompt_name": "b"}, "'b' is not among its prompts: a"),
        ({"prompts": {"a": 3}}, "prompts must map names to texts"),
        ({"prompts": ["a"]}, "prompts must map names to texts"),
    ],
)
def test_prompts_that_make_no_sense_are_broken(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelBroken, match=message):
        read_pipeline(make_folder(tmp_path, {"config_sentence_transformers.json": stated}))


@pytest.mark.parametrize("kind", ["SparseEncoder", "CrossEncoder", "MultiVectorEncoder"])
def test_other_kinds_of_model_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelUnsupported, match=f"a {kind} model"):
        read_pipeline(make_folder(tmp_path, {"config_sentence_transformers.json": {"model_type": kind}}))


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_xlm-roberta_config.json"])
def test_length_and_case_come_from_the_transformers_settings(tmp_path: Path, name: str) -> None:
    pipeline = read_pipeline(make_folder(tmp_path, {name: {"max_seq_length": 128, "do_lower_case": True}}))
    assert (pipeline.max_seq_length, pipeline.do_lower_case) == (128, True)


def test_the_length_of_processing_kwargs_wins(tmp_path: Path) -> None:
    stated = {"max_seq_length": 128, "processing_kwargs": {"text": {"max_length": 64}}}
    assert read_pipeline(make_folder(tmp_path, {"sentence_bert_config.json": stated})).max_seq_length == 64


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"transformer_task": "fill-mask"}, "'fill-mask'"),
        ({"module_output_name": "sentence_embedding"}, "'sentence_embedding'"),
        ({"modality_config": {"text": {}, "message": {}}}, "chat template"),
    ],
)
def test_settings_that_change_the_encoder_are_refused(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelUnsupported, match=message):
        read_pipeline(make_folder(tmp_path, {"sentence_bert_config.json": stated}))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, UNSTATED_LIMIT),
        ({"config.json": {"model_type": "bert", "max_position_embeddings": 512}}, 512),
        ({"config.json": {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}}, 512),
        ({"config.json": {"model_type": "xlm-roberta", "max_position_embeddings": 514}}, 512),
        ({"config.json": {"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}}, 512),
        ({"config.json": {"model_type": "nomic_bert", "n_positions": 8192}}, 8192),
        ({"tokenizer_config.json": {"model_max_length": 384}}, 384),
        ({"tokenizer_config.json": {"model_max_length": 384.0}}, 384),
        ({"tokenizer_config.json": {"model_max_length": int(1e30)}}, UNSTATED_LIMIT),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, UNSTATED_LIMIT),
        ({"tokenizer_config.json": {"model_max_length": None}}, UNSTATED_LIMIT),
        ({"sentence_bert_config.json": {"max_seq_length": 128}}, 128),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, UNSTATED_LIMIT),
        (
            {
                "sentence_bert_config.json": {"max_seq_length": 1024},
                "tokenizer_config.json": {"model_max_length": 512},
                "config.json": {"model_type": "bert", "max_position_embeddings": 2048},
            },
            1024,
        ),
        (
            {
                "sentence_bert_config.json": {"max_seq_length": 514},
                "config.json": {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            },
            512,
        ),
    ],
)
def test_max_tokens(tmp_path: Path, files: dict[str, Any], expected: int) -> None:
    folder = make_folder(tmp_path, files)
    assert max_tokens(folder, read_pipeline(folder)) == expected


def test_a_position_table_of_padding_alone_is_broken(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"config.json": {"model_type": "roberta", "max_position_embeddings": 2}})
    with pytest.raises(ModelBroken, match="2 positions"):
        max_tokens(folder, Pipeline())


REAL = {
    "all-MiniLM-L6-v2": (Pipeline(pooling=("mean",), normalize=True), 512),
    "bge-m3": (Pipeline(pooling=("cls",), prompts={"document": "", "query": ""}), 8192),
    "bge-small-en-v1.5": (Pipeline(), 512),
    "NoInstruct-small-Embedding-v0": (Pipeline(), 512),
    "lodestone-base-4096-v1": (Pipeline(), UNSTATED_LIMIT),
    "stella_en_1.5B_v5": (
        Pipeline(dense=(DenseSpec(path="2_Dense", in_features=1536, out_features=8192, activation="identity"),)),
        131072,
    ),
}


def test_real_folders(shared_data: Path) -> None:
    root = shared_data / "model-configs"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    found = {}
    for path in sorted(root.iterdir()):
        if path.is_dir():
            folder = ModelFolder(path=path, name=path.name, source="folder")
            pipeline = read_pipeline(folder)
            found[path.name] = (pipeline, max_tokens(folder, pipeline))
    assert found == REAL


def test_the_default_model(minilm_folder: ModelFolder) -> None:
    pipeline = read_pipeline(minilm_folder)
    assert pipeline == Pipeline(pooling=("mean",), normalize=True, max_seq_length=256)
    assert max_tokens(minilm_folder, pipeline) == 256
