"""Whether a model's files are all there and whole. Everything here names the file that is not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tandem.errors import ModelBroken
from tandem.models.files import CONFIG, MODULES, VOCABULARIES, WEIGHTS, WEIGHTS_INDEX, graph_files, model_files
from tandem.models.folder import ModelFolder

_PICKLES = ("pytorch_model.bin", "model.pt", "pytorch_model.pt")


def check_complete(folder: ModelFolder) -> None:
    """Raises ModelBroken that lists all that is missing, or names a file that is truncated or not what it should be.

    Cheap: of the weights only the headers are read and compared with the files' sizes.
    """
    missing = missing_files(folder)
    if missing:
        raise ModelBroken(f"the model {folder.name!r} in {folder.path} is incomplete; missing: {', '.join(missing)}")
    folder.read_json(CONFIG)
    # Imported here: numpy comes with it, and most commands about models never open a weight.
    from tandem.models.safetensors import SafetensorsFile

    for path in model_files(folder.path):
        if path.suffix == ".safetensors":
            SafetensorsFile(path)


def missing_files(folder: ModelFolder) -> list[str]:
    """What a model can not do without and this folder does not have; raises ModelBroken for a damaged list of parts."""
    missing = [] if folder.file(CONFIG) else [CONFIG]
    if not any(folder.file(name) for name in VOCABULARIES):
        missing.append("a tokenizer (tokenizer.json or vocab.txt)")
    missing += _missing_weights(folder)
    for module in module_list(folder):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind in {"Pooling", "Dense"}:
            missing += _absent(folder, f"{module['path']}/config.json")
        if kind == "Dense":
            missing += _absent(folder, f"{module['path']}/{WEIGHTS}")
    return missing


def module_list(folder: ModelFolder) -> list[dict[str, Any]]:
    """The entries of ``modules.json`` that have a ``path``; empty without the file. Raises ModelBroken if damaged."""
    modules = folder.read_json_list(MODULES) or []
    if not all(isinstance(module, dict) and isinstance(module.get("path", ""), str) for module in modules):
        raise ModelBroken(f"{folder.path / MODULES}: not a list of modules with a type and a path each")
    return [module for module in modules if module.get("path")]


def sha256_file(path: Path) -> str:
    """Hex digest of the whole file; raises ModelBroken when it can not be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelBroken(f"{path}: can not be read: {error.strerror or error}") from error


def check_pins(folder: ModelFolder, pins: Mapping[str, str]) -> None:
    """Hash each pinned file in full; raises ModelBroken naming the first that differs."""
    for relative, expected in pins.items():
        path = folder.require(relative)
        found = sha256_file(path)
        if found != expected:
            raise ModelBroken(f"{path}: SHA-256 is {found}, but {folder.name!r} is pinned to {expected}")


def _missing_weights(folder: ModelFolder) -> list[str]:
    if folder.file(WEIGHTS) or graph_files(_relatives(folder)):
        return []
    index = folder.read_json(WEIGHTS_INDEX)
    if index is None:
        return [_with_pickle_hint(folder, "", WEIGHTS)]
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelBroken(f"{folder.path / WEIGHTS_INDEX}: has no weight_map")
    return [shard for shard in sorted(set(map(str, shards.values()))) if folder.file(shard) is None]


def _relatives(folder: ModelFolder) -> list[str]:
    return [path.relative_to(folder.path).as_posix() for path in model_files(folder.path)]


def _absent(folder: ModelFolder, relative: str) -> list[str]:
    if folder.file(relative):
        return []
    parent, _, name = relative.rpartition("/")
    return [_with_pickle_hint(folder, f"{parent}/", name)]


def _with_pickle_hint(folder: ModelFolder, parent: str, name: str) -> str:
    pickle = next((p for p in _PICKLES if name == WEIGHTS and folder.file(parent + p)), None)
    return (
        f"{parent}{name} (there is {parent}{pickle}, a pickle, which Tandem does not read)" if pickle else parent + name
    )
