"""Small random models of the real architectures, made by transformers, and the three ways to run them here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.graph_model import built_model
from tandem.models.description import EncoderDescription
from tandem.models.families import describe_folder
from tandem.models.folder import ModelFolder
from tandem.models.reference import forward
from tandem.models.weights import Weights, load_weights
from tandem.types import Output, TokenBatch

Array: TypeAlias = NDArray[np.float32]
Run: TypeAlias = Callable[[TokenBatch], Array]
Engine: TypeAlias = Callable[[EncoderDescription, Mapping[str, Array], Output], Run]

SIZES = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
COMMON = SIZES | {"intermediate_size": 96, "max_position_embeddings": 202}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}

# name -> (transformers' configuration class, its fields). The model class follows from the configuration.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", COMMON),
    "bert-gelu-tanh": ("BertConfig", COMMON | {"hidden_act": "gelu_new"}),
    "bert-silu": ("BertConfig", COMMON | {"hidden_act": "silu"}),
    "bert-relu": ("BertConfig", COMMON | {"hidden_act": "relu"}),
    "roberta": ("RobertaConfig", COMMON | {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRobertaConfig", COMMON | {"type_vocab_size": 1}),
    "camembert": ("CamembertConfig", COMMON | {"type_vocab_size": 1}),
    "distilbert": (
        "DistilBertConfig",
        {"vocab_size": 300, "dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 96, "max_position_embeddings": 202},
    ),
    "mpnet": ("MPNetConfig", COMMON),
    # Six layers hold two global ones beside the first; windows of 8 on either side, texts of up to 200 tokens.
    "modernbert": ("ModernBertConfig", COMMON | TOKENS | {"num_hidden_layers": 6, "local_attention": 16}),
    "modernbert-biased": (
        "ModernBertConfig",
        COMMON | TOKENS | {"local_attention": 16, "norm_bias": True, "attention_bias": True, "mlp_bias": True},
    ),
}

LIMIT = 1e-9
"""How far 1 - cosine may be from 0. Measured: 5e-13. At 1e-5 the tanh form of GELU passes for the erf form, and a wrong
epsilon for the right one."""

# Alone, padded by one, of mixed lengths, as long as the model takes.
BATCHES = {"one": [40], "tiny": [1], "padded": [9, 10], "mixed": [1, 150, 17, 64, 33], "longest": [200, 3]}


def make_model(name: str, head: str = "AutoModel") -> Any:
    """A transformers model with weights rough enough that every block matters: fresh ones are close to linear."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config_class, fields = MODELS[name]
    # One thread: at these sizes the others only wait for each other.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = getattr(transformers, head).from_config(getattr(transformers, config_class)(**fields)).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" not in parameter_name.lower():
                parameter.mul_(8)
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def hidden_states(model: Any, batch: TokenBatch) -> Array:
    """transformers' own last hidden states, [n, s, hidden]."""
    import torch

    mask = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
    with torch.no_grad():
        out = model(input_ids=torch.tensor(batch.ids).long(), attention_mask=torch.tensor(mask).long())
    states: Array = out.last_hidden_state.float().numpy()
    return states


def on_reference(description: EncoderDescription, weights: Mapping[str, Array], output: Output) -> Run:
    return lambda batch: forward(description, weights, msgspec.structs.replace(batch, output=output))


def _on_backend(name: str) -> Engine:
    """As it is served: fp32, packed or not, pooled where the backend pools."""

    def engine(description: EncoderDescription, weights: Mapping[str, Array], output: Output) -> Run:
        backend = BACKENDS.get(name)(built_model(description, weights), BackendOptions())
        return lambda batch: backend.run(msgspec.structs.replace(batch, output=output))

    return engine


on_onnxruntime = _on_backend("onnxruntime")
ENGINES: dict[str, Engine] = {
    "reference": on_reference,
    "onnxruntime": on_onnxruntime,
    "openvino": _on_backend("openvino"),
    "torch": _on_backend("torch"),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


class Case(msgspec.Struct, frozen=True):
    """A family's folder, and batches of it with transformers' hidden states."""

    path: Path
    batches: dict[str, TokenBatch]
    expected: dict[str, Array]


@pytest.fixture(scope="module", params=MODELS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = make_model(request.param)
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    batches = {name: make_batch(lengths, model.config.pad_token_id) for name, lengths in BATCHES.items()}
    return Case(path, batches, {name: hidden_states(model, batch) for name, batch in batches.items()})


def load(path: Path) -> tuple[EncoderDescription, Weights]:
    folder = ModelFolder(path=path, name="golden", source="folder")
    description = describe_folder(folder)
    return description, load_weights(folder, description)


def make_batch(lengths: list[int], pad: int = 0) -> TokenBatch:
    """Random texts without special tokens. The padding is the model's own: transformers reads positions off it."""
    rng = np.random.default_rng(len(lengths))
    ids = rng.integers(5, 300, (len(lengths), max(lengths))).astype(np.int32)
    ids[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = pad
    return TokenBatch(ids, np.array(lengths, np.int32))


def distance(one: Array, other: Array) -> float:
    """The largest 1 - cosine between rows of the same number, in float64."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    products = (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return float(1 - products.min())
