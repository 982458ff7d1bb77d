"""A repository that ships its own graph and has an architecture that Tandem does not build is served from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.graph_model import graph_model
from tandem.backends.quiet_openvino import ov
from tandem.config import Settings
from tandem.errors import ModelBroken, ModelUnsupported
from tandem.fleet import build_backend
from tandem.models.folder import ModelFolder
from tandem.models.loaded import load_model
from tandem.types import Output, TokenBatch
from tests.made_tokenizers import wordpiece
from tests.model_folders import write_json
from tests.tiny_models import write_safetensors

WIDTH = 6
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]
BATCH = TokenBatch(ids=np.array([[5, 6, 7, 0], [9, 8, 0, 0]], np.int32), lengths=np.array([3, 2], np.int32))


def write_graph(path: Path, table: NDArray[np.float32], *, result: str = "last_hidden_state", extra: str = "") -> None:
    """A one-layer "encoder": the token's row plus the share of the text that is not padding."""
    inputs = [name for name in ("input_ids", "attention_mask", extra) if name]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["mask", "axis"], ["share"], keepdims=1),
        helper.make_node("Unsqueeze", ["share", "axis"], ["wide"]),
        helper.make_node("Add", ["rows", "wide"], [result]),
    ]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"]) for name in inputs],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", "s", WIDTH])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """An unknown architecture with its own ONNX file, mean pooling and a dense head."""
    rng = np.random.default_rng(3)
    write_json(tmp_path / "config.json", {"model_type": "nobody-knows", "auto_map": {"AutoModel": "code.Model"}})
    write_json(tmp_path / "modules.json", MODULES)
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    dense = {"in_features": WIDTH, "out_features": 3, "bias": False, "activation_function": "torch.nn.Identity"}
    write_json(tmp_path / "2_Dense" / "config.json", dense)
    weight = rng.standard_normal((3, WIDTH)).astype(np.float32)
    write_safetensors(tmp_path / "2_Dense" / "model.safetensors", {"linear.weight": weight})
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    write_graph(tmp_path / "onnx" / "model.onnx", rng.standard_normal((2000, WIDTH)).astype(np.float32))
    return ModelFolder(path=tmp_path, name="own", source="folder")


def expected_rows(folder: ModelFolder, batch: TokenBatch) -> NDArray[np.float32]:
    """The same by hand: the graph's sum, the mean over real tokens, the dense head."""
    model = onnx.load(str(folder.path / "onnx" / "model.onnx"))
    table = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "table")
    weight = load_model(folder).weights["dense.0.weight"]
    rows = [
        (table[ids[:length]] + length / len(ids)).mean(axis=0) @ weight.T
        for ids, length in zip(batch.ids, batch.lengths, strict=True)
    ]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_rows_are_pooled_and_projected(folder: ModelFolder, engine: str) -> None:
    model = load_model(folder)
    backend = BACKENDS.get(engine)(graph_model(model), BackendOptions())
    np.testing.assert_allclose(backend.run(BATCH), expected_rows(folder, BATCH), rtol=1e-5)
    tokens = backend.run(TokenBatch(ids=BATCH.ids, lengths=BATCH.lengths, output=Output.TOKENS))
    assert tokens.shape == (2, 4, WIDTH)


def test_openvinos_own_format_is_served_too(folder: ModelFolder) -> None:
    expected = expected_rows(folder, BATCH)
    found = ov.Core().read_model(str(folder.path / "onnx" / "model.onnx"))
    ov.save_model(found, str(folder.path / "openvino" / "openvino_model.xml"), compress_to_fp16=False)
    (folder.path / "onnx" / "model.onnx").unlink()
    backend = BACKENDS.get("openvino")(graph_model(load_model(folder)), BackendOptions())
    np.testing.assert_allclose(backend.run(BATCH), expected, rtol=1e-5)


def test_the_whole_choice_works_on_it(folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tmp_path_factory.mktemp("store") / "models"
    settings = Settings(model=str(folder.path), precision="fp32", store_dir=str(store))
    backend = build_backend(settings, load_model(folder))
    np.testing.assert_allclose(backend.run(BATCH), expected_rows(folder, BATCH), rtol=1e-4)


def test_an_input_that_nobody_can_feed_is_named(folder: ModelFolder) -> None:
    write_graph(folder.path / "onnx" / "model.onnx", np.zeros((9, WIDTH), np.float32), extra="pixel_values")
    with pytest.raises(ModelUnsupported, match="pixel_values"):
        load_model(folder)


def test_a_result_that_nobody_can_pool_is_named(folder: ModelFolder) -> None:
    write_graph(folder.path / "onnx" / "model.onnx", np.zeros((9, WIDTH), np.float32), result="logits")
    with pytest.raises(ModelUnsupported, match="logits"):
        load_model(folder)


def test_a_damaged_graph_is_named(folder: ModelFolder) -> None:
    (folder.path / "onnx" / "model.onnx").write_bytes(b"\xff\xff not a graph")
    with pytest.raises(ModelBroken, match=r"model\.onnx"):
        load_model(folder)


def test_without_a_graph_the_architecture_is_refused(folder: ModelFolder) -> None:
    (folder.path / "onnx" / "model.onnx").unlink()
    with pytest.raises(ModelUnsupported, match=r"nobody-knows|remote code|auto_map"):
        load_model(folder)
