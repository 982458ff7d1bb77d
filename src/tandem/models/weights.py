"""A model's weights under their canonical names, checked on load, read on use.

Loading maps the files and checks every name and shape against the description, so that a wrong folder is refused
before anything is computed. No tensor is copied until it is asked for: float32 tensors are views of the mapped
file, float16 and bfloat16 ones are converted one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.description import EncoderDescription, Shape, tensor_shapes
from tandem.models.folder import ModelFolder
from tandem.models.safetensors import SafetensorsFile
from tandem.models.weight_names import TABLES, Slice, source_of

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Checkpoints from before PyTorch's LayerNorm name its two tensors after the paper.
_OLD_NORMS = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
_NAMED_AT_MOST = 8


class _Located(msgspec.Struct, frozen=True):
    file: SafetensorsFile
    source: Slice


class Weights(Mapping[str, NDArray[np.float32]]):
    """Canonical name -> float32 array. Each access reads anew; keep what you use twice."""

    def __init__(self, located: Mapping[str, _Located]) -> None:
        self._located = located

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        located = self._located[name]
        return located.file.read(located.source.name, located.source.part, located.source.parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._located)

    def __len__(self) -> int:
        return len(self._located)


def load_weights(folder: ModelFolder, description: EncoderDescription) -> Weights:
    """Map the folder's safetensors and find every tensor of ``tensor_shapes(description)`` in them.

    Raises ModelBroken for an unreadable or truncated file, ModelUnsupported when tensors are missing, have other
    shapes than the description says, or a dtype that is not read; the message names them.
    """
    tensors = _open(folder)
    table = TABLES[description.family]
    prefix = _prefix(folder, tensors, source_of(table, "embeddings.token.weight").name)
    located: dict[str, _Located] = {}
    missing: list[str] = []
    for name, shape in tensor_shapes(description).items():
        if name.startswith("dense."):
            found = _locate_dense(folder, description, name)
        else:
            found = _locate(tensors, prefix, source_of(table, name))
        if found is None:
            missing.append(name if name.startswith("dense.") else prefix + source_of(table, name).name)
        else:
            _check_shape(found, shape)
            located[name] = found
    if missing:
        shown = ", ".join(dict.fromkeys(missing[:_NAMED_AT_MOST]))
        raise ModelUnsupported(
            f"{folder.path}: {len(missing)} tensors of a {description.family} encoder are missing: {shown}"
        )
    return Weights(located)


def _open(folder: ModelFolder) -> dict[str, SafetensorsFile]:
    """Tensor name -> the file that holds it, for one file or for shards."""
    if single := folder.file(_SINGLE):
        files = [SafetensorsFile(single)]
    elif index := folder.read_json(_INDEX):
        shards = index.get("weight_map")
        if not isinstance(shards, dict):
            raise ModelBroken(f"{folder.path / _INDEX}: has no weight_map")
        files = [SafetensorsFile(folder.require(name)) for name in sorted(set(shards.values()))]
    else:
        raise ModelUnsupported(
            f"{folder.path}: has neither {_SINGLE} nor {_INDEX}; weights are read from safetensors alone, never from "
            "pickles such as pytorch_model.bin"
        )
    return {name: file for file in files for name in file.names()}


def _prefix(folder: ModelFolder, tensors: Mapping[str, SafetensorsFile], anchor: str) -> str:
    """What stands before the family's names, such as ``bert.`` or ``0.auto_model.``, found by the token table."""
    prefixes = [name.removesuffix(anchor) for name in tensors if name == anchor or name.endswith("." + anchor)]
    if not prefixes:
        raise ModelUnsupported(f"{folder.path}: no tensor is named {anchor}; these are not the weights of its config")
    if len(prefixes) > 1:
        raise ModelUnsupported(f"{folder.path}: holds several encoders: {', '.join(prefixes)}; supported is one")
    return prefixes[0]


def _locate(tensors: Mapping[str, SafetensorsFile], prefix: str, source: Slice) -> _Located | None:
    name = prefix + source.name
    if name not in tensors:
        for new, old in _OLD_NORMS.items():
            name = name.removesuffix(new) + old if name.endswith(new) else name
    return _Located(tensors[name], Slice(name, source.part, source.parts)) if name in tensors else None


def _locate_dense(folder: ModelFolder, description: EncoderDescription, name: str) -> _Located | None:
    _, index, kind = name.split(".")
    file = SafetensorsFile(folder.require(f"{description.dense[int(index)].path}/{_SINGLE}"))
    own = f"linear.{kind}"
    return _Located(file, Slice(own)) if own in file.names() else None


def _check_shape(found: _Located, expected: Shape) -> None:
    stored = found.file.shape(found.source.name)
    wanted = (expected[0] * found.source.parts, *expected[1:])
    if stored != wanted:
        raise ModelUnsupported(
            f"{found.file.path}: tensor {found.source.name!r} has shape {list(stored)}, config.json says {list(wanted)}"
        )
