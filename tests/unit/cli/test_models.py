from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.cli.main import main
from tandem.clock import ManualClock
from tandem.models.progress import Silent
from tandem.models.store import Store
from tests.model_folders import BERT, sha256, write_json, write_model

NAME = "acme/tiny"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the commands below use; TANDEM_HOME is how a user chooses one."""
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home" / "models")


@pytest.fixture
def model(tmp_path: Path, store: Store) -> Path:
    """One model in the store, as it lies there."""
    write_model(tmp_path / "model")
    with store.adding(NAME, Silent()) as incoming:
        shutil.copytree(tmp_path / "model", incoming.files, dirs_exist_ok=True)
        return incoming.commit("a test", {}, ManualClock(1_700_000_000.0)).path


def run(*words: str) -> int:
    return main(["models", words[0], "--no-hub", "--no-package-index", *words[1:]])


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    return capsys


def test_an_empty_list_says_how_to_begin(store: Store, shown: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "`tandem models pull` fetches sentence-transformers/all-MiniLM-L6-v2" in shown.readouterr().out
    assert run("list", "--json") == 0
    assert json.loads(shown.readouterr().out) == []


def test_list_shows_name_source_size_fingerprint_and_when(
    store: Store, model: Path, shown: pytest.CaptureFixture[str]
) -> None:
    found = store.find(NAME)
    assert found is not None
    run("list")
    header, row = shown.readouterr().out.splitlines()
    assert header.split() == ["NAME", "SOURCE", "SIZE", "FINGERPRINT", "ADDED"]
    assert row.split() == [NAME, "store", "25.0", "kB", found.fingerprint(), "2023-11-14", "22:13", "UTC"]
    run("list", "--json")
    (entry,) = json.loads(shown.readouterr().out)
    assert entry["name"] == NAME
    assert entry["path"] == str(model)
    assert entry["origin"] == "a test"
    assert entry["added_s"] == 1_700_000_000
    assert entry["problem"] is None


def test_list_names_what_is_damaged(store: Store, model: Path, shown: pytest.CaptureFixture[str]) -> None:
    (model / "config.json").unlink()
    assert run("list") == 0
    output = shown.readouterr()
    assert "unusable" in output.out
    assert "config.json is missing" in output.err


def test_show_tells_what_the_model_is(store: Store, model: Path, shown: pytest.CaptureFixture[str]) -> None:
    assert run("show", NAME) == 0
    text = shown.readouterr().out
    facts = dict(line.split(maxsplit=1) for line in text.partition("\n\n")[0].splitlines() if "  " in line)
    assert facts["architecture"] == "bert"
    assert facts["dimensions"] == "16"
    assert facts["path"] == str(model)
    assert "max length    20 tokens" in text
    assert f"model.safetensors          24253  sha256:{sha256(model / 'model.safetensors')}" in text
    assert "verified" not in text


def test_show_as_json(store: Store, model: Path, shown: pytest.CaptureFixture[str]) -> None:
    assert run("show", NAME, "--json") == 0
    value = json.loads(shown.readouterr().out)
    assert value["architecture"]["dims"] == 16
    assert value["architecture"]["max_tokens"] == 20
    assert value["model"]["source"] == "store"
    assert {file["path"] for file in value["files"]} >= {"config.json", "model.safetensors", "1_Pooling/config.json"}


def test_what_no_sample_would_find_is_found_with_and_without_verify(
    store: Store, model: Path, shown: pytest.CaptureFixture[str]
) -> None:
    assert run("show", NAME, "--verify") == 0
    assert "verified      whole" in shown.readouterr().out
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    words = json.loads(content[8:start])["embeddings.token.weight"]["data_offsets"]
    content[start + words[1] - 1] ^= 1  # the end of 3 KB: neither their first KB nor their middle one
    weights.write_bytes(content)
    for words in (["show", NAME], ["show", NAME, "--verify"]):
        assert run(*words) == 3
        assert "model.safetensors has SHA-256" in shown.readouterr().err


def test_a_folder_is_shown_and_verify_has_nothing_to_compare_it_with(
    store: Store, tmp_path: Path, shown: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "own")
    assert run("show", str(folder), "--verify") == 0
    text = shown.readouterr().out
    assert "source        folder\n" in text
    assert "nothing recorded" in text


def test_a_model_that_tandem_can_not_build_is_shown_with_the_reason(
    store: Store, tmp_path: Path, shown: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "own")
    write_json(folder / "config.json", BERT | {"model_type": "of_tomorrow"})
    assert run("show", str(folder)) == 0
    text = shown.readouterr().out
    assert "architecture  of_tomorrow" in text
    assert "supported are bert" in text


def test_rm_removes_and_says_what_it_freed(store: Store, model: Path, shown: pytest.CaptureFixture[str]) -> None:
    assert run("rm", NAME) == 0
    assert shown.readouterr().out.startswith(f"removed {NAME} from {store.root}: ")
    assert not model.exists()
    assert run("rm", NAME) == 3
    assert f"has no model '{NAME}'" in shown.readouterr().err


@pytest.mark.parametrize("name", ["../model", "{tmp}/model", "", ".", ".."])
def test_rm_touches_nothing_but_the_store(
    store: Store, model: Path, tmp_path: Path, name: str, shown: pytest.CaptureFixture[str]
) -> None:
    assert run("rm", name.format(tmp=tmp_path)) == 3
    assert "only models of the store" in shown.readouterr().err
    assert (tmp_path / "model" / "config.json").exists()
    assert model.exists()


def test_pull_of_nothing_that_is_anywhere(store: Store, shown: pytest.CaptureFixture[str]) -> None:
    assert run("pull", "acme/none", "--quiet") == 3
    assert "no source has the model 'acme/none'" in shown.readouterr().err


def test_pull_of_what_is_there_says_where(store: Store, model: Path, shown: pytest.CaptureFixture[str]) -> None:
    assert run("pull", NAME) == 0
    assert shown.readouterr().out == f"{NAME} is ready in {model}\n"


def test_another_store_by_option(model: Path, tmp_path: Path, shown: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json", "--store", str(tmp_path / "other")) == 0
    assert json.loads(shown.readouterr().out) == []


@pytest.mark.parametrize("flag", ["--store", "--store-dir"])
def test_the_variables_of_the_settings_are_honoured_and_flags_overrule_them(
    model: Path, tmp_path: Path, flag: str, shown: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_USE_HUB", "false")
    monkeypatch.setenv("TANDEM_USE_PACKAGE_INDEX", "false")
    assert main(["models", "pull", "acme/none", "--quiet"]) == 3
    told = shown.readouterr().err
    assert run("pull", "acme/none", "--quiet") == 3
    assert shown.readouterr().err == told
    monkeypatch.setenv("TANDEM_STORE_DIR", str(tmp_path / "other"))
    assert main(["models", "list", "--json"]) == 0
    assert json.loads(shown.readouterr().out) == []
    assert main(["models", "list", "--json", flag, str(model.parent)]) == 0
    assert [entry["name"] for entry in json.loads(shown.readouterr().out)] == [NAME]
    monkeypatch.setenv("TANDEM_USE_HUB", "perhaps")
    assert main(["models", "list"]) == 2


def test_the_settings_names_of_the_flags_are_taken_too(
    store: Store, model: Path, shown: pytest.CaptureFixture[str]
) -> None:
    given = ["--no-use-hub", "--no-use-package-index"]
    assert main(["models", "list", "--json", *given]) == 0
    assert [entry["name"] for entry in json.loads(shown.readouterr().out)] == [NAME]
    assert main(["models", "pull", "acme/none", "--quiet", *given]) == 3
    told = shown.readouterr().err
    assert main(["models", "pull", "acme/none", "--quiet", "--no-hub", "--no-package-index"]) == 3
    assert shown.readouterr().err == told


@pytest.mark.parametrize(
    "words", [[], ["fetch"], ["rm"], ["pull", "--hub-timeout", "0"], ["pull", "--hub-timeout", "x"]]
)
def test_a_wrong_command_line_is_usage(words: list[str], store: Store) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["models", *words])
    assert leave.value.code == 2


def test_listing_an_empty_store_needs_neither_numpy_nor_a_network(tmp_path: Path) -> None:
    program = """
import sys
from tandem.cli.main import main
main(["models", "list", "--no-hub"])
sys.exit(", ".join({"numpy", "huggingface_hub", "onnx"} & sys.modules.keys()) or 0)
"""
    environment = {**os.environ, "TANDEM_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
