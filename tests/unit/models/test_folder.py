from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tandem.errors import ModelBroken
from tandem.models.folder import ModelFolder
from tests.model_folders import write_json, write_model
from tests.tiny_models import random_weights, tiny, write_safetensors


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(write_model(tmp_path / "model"), "acme/tiny", "folder")


def test_files_are_found_by_relative_path(folder: ModelFolder) -> None:
    assert folder.file("1_Pooling/config.json") == folder.path / "1_Pooling" / "config.json"
    assert folder.file("2_Dense/config.json") is None
    assert folder.file("1_Pooling") is None


def test_a_required_file_that_is_missing_is_named(folder: ModelFolder) -> None:
    with pytest.raises(ModelBroken, match=r"vocab\.txt"):
        folder.require("vocab.txt")


@pytest.mark.parametrize("relative", ["../secret.json", "/etc/passwd", "1_Pooling/../../secret.json", "..\\x", "a\0b"])
def test_a_path_that_leads_out_is_refused(folder: ModelFolder, relative: str) -> None:
    (folder.path.parent / "secret.json").write_text("{}")
    with pytest.raises(ModelBroken, match="leads out"):
        folder.read_json(relative)


def test_links_are_followed_as_the_hubs_cache_is_made_of_them(folder: ModelFolder, tmp_path: Path) -> None:
    write_json(tmp_path / "blob", {"a": 1})
    (folder.path / "linked.json").symlink_to(tmp_path / "blob")
    assert folder.read_json("linked.json") == {"a": 1}


def test_json_is_an_object_or_a_list_or_named_as_broken(folder: ModelFolder) -> None:
    assert folder.read_json("nothing.json") is None
    assert folder.read_json_list("nothing.json") is None
    modules = folder.read_json_list("modules.json")
    assert modules is not None
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    with pytest.raises(ModelBroken, match=r"modules\.json"):
        folder.read_json("modules.json")
    for content in (b"{", b"", b'{"a": NaN}', b'"\xff"', b"null"):
        (folder.path / "bad.json").write_bytes(content)
        with pytest.raises(ModelBroken, match=r"bad\.json"):
            folder.read_json("bad.json")


def denies(method: str) -> Callable[[Path], object]:
    """What a path answers to a user who may not read it; the tests may run as root, who may read everything."""

    def deny(self: Path) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    return deny


@pytest.mark.parametrize("method", ["is_file", "read_bytes"])
def test_what_may_not_be_read_is_named(folder: ModelFolder, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, method, denies(method))
    with pytest.raises(ModelBroken, match=r"config\.json: can not be read: Permission denied"):
        folder.read_json("config.json")


def test_the_fingerprint_does_not_depend_on_name_place_or_a_readme(folder: ModelFolder, tmp_path: Path) -> None:
    other = ModelFolder(write_model(tmp_path / "elsewhere"), "another/name", "store")
    (other.path / "README.md").unlink()
    (other.path / "tandem.json").write_text("{}")
    assert other.fingerprint() == folder.fingerprint()


def change_json(relative: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / relative
        text = path.read_text()
        value = json.loads(text) if text.startswith("{") else {"list": json.loads(text)}
        write_json(path, value | {"x": 1})

    return change


def change_one_bias(root: Path) -> None:
    weights = random_weights(tiny())
    weights["layers.1.mlp.down.bias"] = weights["layers.1.mlp.down.bias"] + np.float32(0.001)
    write_safetensors(root / "model.safetensors", weights)


def add_a_prompt(root: Path) -> None:
    write_json(root / "config_sentence_transformers.json", {"prompts": {"query": "query: "}})


@pytest.mark.parametrize(
    "change",
    [
        *map(change_json, ("config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json")),
        change_one_bias,
        add_a_prompt,
    ],
)
def test_the_fingerprint_changes_with_whatever_changes_a_vector(
    folder: ModelFolder, change: Callable[[Path], None]
) -> None:
    before = folder.fingerprint()
    change(folder.path)
    assert folder.fingerprint() != before


@pytest.mark.parametrize("content", [b"", b"\xff" * 7, b"\xff" * 100, (2).to_bytes(8, "little") + b"[]"])
def test_weights_without_a_header_are_named(folder: ModelFolder, content: bytes) -> None:
    (folder.path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelBroken, match=r"model\.safetensors"):
        folder.fingerprint()
