"""Descriptions and weights of tiny random encoders, and a writer of safetensors, for tests of every floor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandem.models.description import EncoderDescription, LayerSpec, tensor_shapes

_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "uint16": "BF16"}


def tiny(
    layers: tuple[LayerSpec, ...] = (LayerSpec(), LayerSpec()), changes: Mapping[str, Any] | None = None
) -> EncoderDescription:
    """A BERT of 2 layers, 16 wide, 2 heads, 50 words and 24 places, with ``changes`` to its fields."""
    fields: dict[str, Any] = {
        "family": "bert",
        "vocab_size": 50,
        "hidden": 16,
        "heads": 2,
        "intermediate": 24,
        "max_positions": 24,
        "token_types": 2,
        "layers": layers,
    }
    return EncoderDescription(**fields | dict(changes or {}))


def random_weights(description: EncoderDescription, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights far enough from zero that every block bends its input, norms around 1."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in tensor_shapes(description).items():
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        weights[name] = (centre + 0.3 * rng.standard_normal(shape)).astype(np.float32)
    return weights


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write the format by its own page, not by the library that reads it. uint16 stands for bfloat16's bits."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        begin = len(data)
        data += tensor.tobytes()
        entry = {"dtype": _DTYPES[str(tensor.dtype)], "shape": tensor.shape, "data_offsets": (begin, len(data))}
        header[name] = entry
    encoded = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
