"""Which files of a model repository Tandem takes, and which of them decide a vector.

Never a pickle (``.bin``, ``.pt``, ``.ckpt``) and never code: what runs nothing can do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

CONFIG = "config.json"
MODULES = "modules.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"

TOKENIZER_FILES = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
# In the early days of sentence-transformers each family had a settings file of its own name.
_FAMILIES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
CONFIG_FILES = frozenset(
    {CONFIG, MODULES, "config_sentence_transformers.json", *(f"sentence_{name}_config.json" for name in _FAMILIES)}
)
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Any one of these makes a tokenizer."""

GRAPHS = ("onnx/model.onnx", "model.onnx", "openvino/openvino_model.xml", "openvino_model.xml")
"""A repository's own graph, the one that is taken first. Quantised and optimised variants beside it are not taken."""

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_DEPTH = 2  # files lie in the root or in a module's folder: 1_Pooling/, 2_Dense/, onnx/, openvino/


def decides_vectors(relative: str) -> bool:
    """Whether the file's content can change an embedding: configs, tokenizers and weights, not a README or a log.

    Two downloads of one model thus have one fingerprint whatever else came with them.
    """
    path = PurePosixPath(relative)
    if len(path.parts) > _DEPTH:
        return False
    return path.name in CONFIG_FILES | TOKENIZER_FILES or path.suffix == ".safetensors" or _is_graph(path)


def model_files(root: Path) -> Iterator[Path]:
    """Every file in ``root`` and in the folders directly below it; hidden ones are left out."""
    for pattern in ("*", "*/*"):
        for path in root.glob(pattern):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                yield path


def main_weights(relatives: Collection[str]) -> list[str]:
    """The encoder's safetensors in the root: the single file, or where there is none every shard."""
    return [WEIGHTS] if WEIGHTS in relatives else sorted(name for name in relatives if _SHARD.fullmatch(name))


def graph_files(relatives: Collection[str]) -> list[str]:
    """The repository's own graph with what it can not do without, the graph first; empty where it has none."""
    for graph in GRAPHS:
        if graph in relatives:
            # ONNX keeps big tensors in model.onnx_data or model.onnx.data, OpenVINO keeps all of them in the .bin.
            stem = graph.removesuffix(".xml") + ".bin" if graph.endswith(".xml") else graph
            return [graph, *sorted(name for name in relatives if name.startswith(stem) and name != graph)]
    return []


def plan_download(relatives: Collection[str], module_folders: Iterable[str], *, graph: bool) -> list[str]:
    """The files worth their transfer, the weights last, so that where the weights are all else is.

    ``module_folders`` are those that ``modules.json`` names; other folders (checkpoints, other formats) are left
    alone. ``graph``: the repository's own graph is taken in the place of its safetensors.
    """
    # 1_Pooling is where pooling is said, by custom also in a repository that has no modules.json.
    folders = {"", "1_Pooling", *(folder.strip("/") for folder in module_folders)}
    small, heads = [], []
    for name in relatives:
        folder, _, base = name.rpartition("/")
        if folder in folders and base in CONFIG_FILES | TOKENIZER_FILES:
            small.append(name)
        elif folder and folder in folders and base == WEIGHTS:
            heads.append(name)
    if graph:
        return [*sorted(small), *sorted(heads), *graph_files(relatives)]
    index = [WEIGHTS_INDEX] if WEIGHTS_INDEX in relatives and WEIGHTS not in relatives else []
    return [*sorted(small), *index, *sorted(heads), *main_weights(relatives)]


def _is_graph(path: PurePosixPath) -> bool:
    if path.suffix == ".bin":  # OpenVINO's weights are raw numbers; any other .bin is a pickle
        return path.name.startswith("openvino_")
    return path.suffix == ".onnx" or ".onnx_data" in path.name or ".onnx.data" in path.name or path.suffix == ".xml"
