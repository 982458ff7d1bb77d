"""Each family against transformers: small random models of the real architecture, on every way to run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tandem.models.sentence_files import DenseSpec
from tandem.models.weights import Weights
from tandem.types import Output, TokenBatch
from tests.golden.conftest import (
    LIMIT,
    Case,
    Engine,
    distance,
    hidden_states,
    load,
    make_batch,
    make_model,
    on_onnxruntime,
)

MODES = {"cls": "cls", "max": "max", "mean": "mean", "mean_sqrt_len": "mean_sqrt_len_tokens"} | {
    "weightedmean": "weightedmean",
    "last": "lasttoken",
}


def mean_of(states: Any, batch: TokenBatch) -> Any:
    return np.stack([state[:length].mean(axis=0) for state, length in zip(states, batch.lengths, strict=True)])


def test_hidden_states(family: Case, engine: Engine) -> None:
    run = engine(*load(family.path), Output.TOKENS)
    for name, batch in family.batches.items():
        real = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
        assert distance(run(batch)[real], family.expected[name][real]) <= LIMIT, name


def test_pooled_rows(family: Case, engine: Engine) -> None:
    run = engine(*load(family.path), Output.POOLED)
    for name, batch in family.batches.items():
        assert distance(run(batch), mean_of(family.expected[name], batch)) <= LIMIT, name


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = make_model("bert")
    path = tmp_path_factory.mktemp("bert")
    model.save_pretrained(path)
    return model, path


@pytest.mark.parametrize("skip", [0, 4])
@pytest.mark.parametrize("modes", [*[(mode,) for mode in MODES], tuple(MODES)], ids="+".join)
def test_poolings_of_sentence_transformers(
    bert: tuple[Any, Path], engine: Engine, modes: tuple[str, ...], skip: int
) -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    model, path = bert
    batch = make_batch([5, 30, 12])
    mask = torch.arange(30) < torch.tensor(batch.lengths)[:, None]
    pooling = Pooling(64, pooling_mode=[MODES[mode] for mode in modes], include_prompt=skip == 0)
    features = {"token_embeddings": torch.tensor(hidden_states(model, batch)), "attention_mask": mask.long()}
    expected = pooling(features | {"prompt_length": skip})["sentence_embedding"].numpy()
    description, weights = load(path)
    described = msgspec.structs.replace(description, pooling=modes, skips_prompt=skip > 0)
    found = engine(described, weights, Output.POOLED)(msgspec.structs.replace(batch, skips=np.full(3, skip, np.int32)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("activation", ["Identity", "Tanh", "ReLU", "GELU"])
def test_dense_heads_of_sentence_transformers(
    bert: tuple[Any, Path], engine: Engine, tmp_path: Path, activation: str
) -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    model, path = bert
    torch.manual_seed(0)
    dense = Dense(64, 24, activation_function=getattr(torch.nn, activation)())
    for file in path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "2_Dense").mkdir()
    dense.save(str(tmp_path / "2_Dense"))
    batch = make_batch([5, 30, 12])
    pooled = torch.tensor(mean_of(hidden_states(model, batch), batch))
    with torch.no_grad():
        expected = dense({"sentence_embedding": pooled})["sentence_embedding"].numpy()
    head = DenseSpec(path="2_Dense", in_features=64, out_features=24, activation=activation.lower())
    description, weights = load_with_head(tmp_path, head)
    np.testing.assert_allclose(engine(description, weights, Output.POOLED)(batch), expected, rtol=1e-3, atol=1e-5)


def load_with_head(path: Path, head: DenseSpec) -> tuple[Any, Weights]:
    from tandem.models.folder import ModelFolder
    from tandem.models.weights import load_weights

    description = msgspec.structs.replace(load(path)[0], dense=(head,))
    return description, load_weights(ModelFolder(path=path, name="golden", source="folder"), description)


def save_sharded(model: Any, path: Path) -> None:
    model.save_pretrained(path, max_shard_size="100KB")
    assert len(list(path.glob("model-*.safetensors"))) > 1


def save_half(model: Any, path: Path) -> None:
    model.half().save_pretrained(path)


def save_bfloat16(model: Any, path: Path) -> None:
    model.bfloat16().save_pretrained(path)


@pytest.mark.parametrize("save", [save_sharded, save_half, save_bfloat16])
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_weights_stored_in_other_ways(tmp_path: Path, name: str, save: Callable[[Any, Path], None]) -> None:
    """Both sides widen the stored weights to float32 and compute there."""
    import torch
    from transformers import AutoModel

    save(make_model(name), tmp_path)
    model = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    batch = make_batch([40, 9])
    found = on_onnxruntime(*load(tmp_path), Output.POOLED)(batch)
    assert distance(found, mean_of(hidden_states(model, batch), batch)) <= LIMIT


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "modernbert"])
def test_an_encoder_saved_with_a_language_head(tmp_path: Path, name: str) -> None:
    """Such files put ``bert.`` or ``model.`` before every name, and hold tensors that are none of ours."""
    model = make_model(name, "AutoModelForMaskedLM")
    model.save_pretrained(tmp_path)
    batch = make_batch([40, 9], model.config.pad_token_id)
    expected = mean_of(hidden_states(model.base_model, batch), batch)
    assert distance(on_onnxruntime(*load(tmp_path), Output.POOLED)(batch), expected) <= LIMIT


def test_a_modernbert_config_from_before_transformers_5(tmp_path: Path) -> None:
    model = make_model("modernbert")
    model.save_pretrained(tmp_path)
    new = load(tmp_path)[0]
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("layer_types", "rope_parameters"):
        del config[key]
    config |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert load(tmp_path)[0] == new
