"""Which files of a model repository Tandem takes, and which of them decide a vector.

Never a pickle (``.bin``, ``.pt``, ``.ckpt``) and never code: what runs nothing can do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

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
CONFIG_FILES = frozenset(
    {
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "sentence_bert_config.json",
    }
)
_DEPTH = 2  # files lie in the root or in a module's folder: 1_Pooling/, 2_Dense/, onnx/, openvino/


def decides_vectors(relative: str) -> bool:
    """Whether the file's content can change an embedding: configs, tokenizers and weights, not a README or a log.

    Two downloads of one model thus have one fingerprint whatever else came with them.
    """
    path = PurePosixPath(relative)
    if len(path.parts) > _DEPTH:
        return False
    return path.name in CONFIG_FILES or path.name in TOKENIZER_FILES or is_safetensors(relative) or is_graph(relative)


def is_safetensors(relative: str) -> bool:
    return relative.endswith(".safetensors")


def is_graph(relative: str) -> bool:
    """An ONNX file with its external data, or an OpenVINO pair. OpenVINO's ``.bin`` is raw numbers, not a pickle."""
    path = PurePosixPath(relative)
    if path.suffix == ".bin":
        return path.parent.name == "openvino" and path.name.startswith("openvino_")
    return path.suffix in {".onnx", ".onnx_data"} or (path.suffix == ".xml" and path.parent.name == "openvino")


def model_files(root: Path) -> Iterator[Path]:
    """Every file in ``root`` and in the folders directly below it; hidden ones are left out."""
    for pattern in ("*", "*/*"):
        for path in root.glob(pattern):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                yield path


def wanted(relatives: Iterable[str]) -> list[str]:
    """The files of a repository that are worth their transfer, sorted.

    Configs and tokenizer files; of the weights the safetensors, or where a repository has none its own ONNX or
    OpenVINO graph.
    """
    names = [name for name in relatives if decides_vectors(name) or name.endswith(".safetensors.index.json")]
    if any(is_safetensors(name) and "/" not in name for name in names):
        names = [name for name in names if not is_graph(name)]
    return sorted(names)
