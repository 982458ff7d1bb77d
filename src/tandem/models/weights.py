"""A model's weights under their canonical names, checked on load, read on use.

Loading maps the files and checks every name and shape against the description, so that a wrong folder is refused
before anything is computed. No tensor is copied until it is asked for: float32 tensors are views of the mapped
file, float16 and bfloat16 ones are converted one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.description import EncoderDescription, Shape, tensor_shapes
from tandem.models.folder import ModelFolder
from tandem.models.safetensors import FLOAT_DTYPES, SafetensorsFile
from tandem.models.sentence_files import DenseSpec
from tandem.models.weight_names import TABLES, Slice, source_of

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Checkpoints from before PyTorch's LayerNorm name its two tensors after the paper.
_OLD_NORMS = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
_NAMED_AT_MOST = 8


class _Located(msgspec.Struct, frozen=True):
    file: SafetensorsFile
    source: Slice


class _ShardIndex(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


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
    find = _finder(folder, description) if description.layers else str
    heads = [_open_head(folder, head) for head in description.dense]
    located: dict[str, _Located] = {}
    missing: list[str] = []
    for name, shape in tensor_shapes(description).items():
        found = _in_head(heads, name) if name.startswith("dense.") else find(name)
        if isinstance(found, str):
            missing.append(found)
        else:
            _check(found, shape)
            located[name] = found
    if missing:
        named = ", ".join(dict.fromkeys(missing[:_NAMED_AT_MOST]))
        raise ModelUnsupported(
            f"{folder.path}: {len(missing)} tensors that a {description.family} encoder needs are missing: {named}"
        )
    return Weights(located)


def _open(folder: ModelFolder) -> dict[str, SafetensorsFile]:
    """Tensor name -> the file that holds it, for one file or for shards."""
    if single := folder.file(_SINGLE):
        files = [SafetensorsFile(single)]
    elif (index := folder.read_json(_INDEX)) is not None:
        try:
            shards = set(msgspec.convert(index, _ShardIndex).weight_map.values())
        except msgspec.ValidationError as error:
            raise ModelBroken(f"{folder.path / _INDEX}: {error}") from error
        files = [SafetensorsFile(folder.require(shard)) for shard in sorted(shards)]
    else:
        raise ModelUnsupported(
            f"{folder.path}: has neither {_SINGLE} nor {_INDEX}; weights are read from safetensors alone, never from "
            "pickles such as pytorch_model.bin"
        )
    return {name: file for file in files for name in file.names()}


def _finder(folder: ModelFolder, description: EncoderDescription) -> Callable[[str], _Located | str]:
    """A function from a canonical name to where the tensor lies, or to the name under which it is missing."""
    tensors = _open(folder)
    table = TABLES[description.family]
    prefix = _prefix(folder, tensors, source_of(table, "embeddings.token.weight").name)

    def find(canonical: str) -> _Located | str:
        source = source_of(table, canonical)
        name = prefix + source.name
        stored = name if name in tensors else _old_norm(name)
        return _Located(tensors[stored], Slice(stored, source.part, source.parts)) if stored in tensors else name

    return find


def _prefix(folder: ModelFolder, tensors: Mapping[str, SafetensorsFile], anchor: str) -> str:
    """What stands before the family's names, such as ``bert.`` or ``0.auto_model.``, found by the token table."""
    prefixes = [name.removesuffix(anchor) for name in tensors if name == anchor or name.endswith("." + anchor)]
    if not prefixes:
        raise ModelUnsupported(f"{folder.path}: no tensor is named {anchor}; these are not the weights of its config")
    if len(prefixes) > 1:
        raise ModelUnsupported(f"{folder.path}: holds several encoders: {', '.join(prefixes)}; supported is one")
    return prefixes[0]


def _old_norm(name: str) -> str:
    for new, old in _OLD_NORMS.items():
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name


def _open_head(folder: ModelFolder, head: DenseSpec) -> SafetensorsFile:
    return SafetensorsFile(folder.require(f"{head.path}/{_SINGLE}"))


def _in_head(heads: list[SafetensorsFile], canonical: str) -> _Located | str:
    _, index, kind = canonical.split(".")
    file, name = heads[int(index)], f"linear.{kind}"
    return _Located(file, Slice(name)) if name in file.names() else f"{file.path.parent.name}: {name}"


def _check(found: _Located, expected: Shape) -> None:
    file, name = found.file, found.source.name
    if file.dtype(name) not in FLOAT_DTYPES:
        raise ModelUnsupported(
            f"{file.path}: tensor {name!r} is stored as {file.dtype(name)}; supported are {', '.join(FLOAT_DTYPES)}"
        )
    stored = file.shape(name)
    wanted = (expected[0] * found.source.parts, *expected[1:])
    if stored != wanted:
        raise ModelUnsupported(
            f"{file.path}: tensor {name!r} has shape {list(stored)}, config.json says {list(wanted)}"
        )
