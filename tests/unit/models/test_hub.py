from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tandem.errors import DownloadFailed, ModelBroken, ModelUnsupported
from tandem.models.catalog import CatalogEntry
from tandem.models.folder import ModelFolder
from tandem.models.hub import fetch, find_in_cache
from tandem.models.progress import Silent
from tandem.models.sources import Found, NotHere, SourceOptions, Wanted
from tests.model_folders import (
    BERT,
    MODULES,
    FakeHub,
    Notes,
    files_below,
    sha256,
    shard_index,
    small_weights,
    write_json,
    write_model,
)

NAME = "acme/tiny"


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return write_model(tmp_path / "remote")


@pytest.fixture
def hub(tmp_path: Path, remote: Path) -> FakeHub:
    return FakeHub(NAME, remote, tmp_path / "cache")


@pytest.fixture
def options(tmp_path: Path) -> SourceOptions:
    return SourceOptions(store_dir=tmp_path / "store")


def wanted(pins: dict[str, str] | None = None) -> Wanted:
    return Wanted(NAME, NAME, CatalogEntry(hub_id=NAME, sha256=pins or {}))


def cached(hub: FakeHub, pins: dict[str, str] | None = None) -> Found:
    return find_in_cache(wanted(pins), hub.calls())


def test_only_what_is_needed_is_fetched_and_the_weights_come_last(hub: FakeHub, options: SourceOptions) -> None:
    found = fetch(wanted(), options, hub.calls(), Silent())
    assert found == ModelFolder(hub.snapshot, NAME, "hub")
    assert hub.asked == [
        "listing",
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "model.safetensors",
    ]


def test_what_was_fetched_is_found_in_the_cache_without_a_question(hub: FakeHub, options: SourceOptions) -> None:
    assert isinstance(cached(hub), NotHere)
    fetch(wanted(), options, hub.calls(), Silent())
    hub.asked.clear()
    assert cached(hub) == ModelFolder(hub.snapshot, NAME, "hub")
    assert hub.asked == []


def test_progress_counts_over_all_files(hub: FakeHub, options: SourceOptions) -> None:
    progress = Notes()
    fetch(wanted(), options, hub.calls(), progress)
    total = sum((hub.snapshot / name).stat().st_size for name in files_below(hub.snapshot))
    done = [done for _, done, total_bytes in progress.transfers if total_bytes == total]
    assert done == sorted(done)
    assert done[-1] == total
    assert progress.notes[0] == "asking the Hugging Face hub for acme/tiny"


def test_sharded_weights_come_with_their_index(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    (remote / "model.safetensors").unlink()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for seed, shard in enumerate(shards):
        small_weights(remote / shard, seed)
    write_json(remote / "model.safetensors.index.json", shard_index({"a": shards[0], "b": shards[1]}))
    fetch(wanted(), options, hub.calls(), Silent())
    assert hub.asked[-3:] == ["model.safetensors.index.json", *shards]
    (hub.snapshot / shards[1]).unlink()
    found = cached(hub)
    assert isinstance(found, NotHere)
    assert shards[1] in found.answer


def test_dense_heads_come_and_other_folders_do_not(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    write_json(remote / "modules.json", [*MODULES[:2], dense])
    write_json(remote / "2_Dense" / "config.json", {"in_features": 16, "out_features": 4})
    for folder in ("2_Dense", "checkpoint-500"):
        small_weights(remote / folder / "model.safetensors")
    (remote / "onnx").mkdir()
    (remote / "onnx" / "model.onnx").write_bytes(b"graph")
    fetch(wanted(), options, hub.calls(), Silent())
    assert hub.asked[-2:] == ["2_Dense/model.safetensors", "model.safetensors"]
    assert not {"checkpoint-500/model.safetensors", "onnx/model.onnx"} & set(hub.asked)


def test_a_model_without_modules_json_is_remembered_as_such(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    (remote / "modules.json").unlink()
    fetch(wanted(), options, hub.calls(), Silent())
    assert isinstance(cached(hub), ModelFolder)


def test_a_cache_that_another_tool_filled_in_part_is_not_trusted(hub: FakeHub, options: SourceOptions) -> None:
    """transformers takes config, weights and tokenizer; mean pooling in the place of the model's own would be wrong."""
    fetch(wanted(), options, hub.calls(), Silent())
    (hub.snapshot / "modules.json").unlink()
    found = cached(hub)
    assert isinstance(found, NotHere)
    assert "modules.json" in found.answer
    fetch(wanted(), options, hub.calls(), Silent())
    assert isinstance(cached(hub), ModelFolder)


def unknown_family(remote: Path, *, onnx: bool = True, safetensors: bool = True) -> None:
    write_json(remote / "config.json", BERT | {"model_type": "of_tomorrow"})
    if onnx:
        (remote / "onnx").mkdir()
        for name in ("model.onnx", "model.onnx_data", "model_quantized.onnx"):
            (remote / "onnx" / name).write_bytes(b"graph")
    if not safetensors:
        (remote / "model.safetensors").unlink()


@pytest.mark.parametrize("safetensors", [True, False])
def test_an_unknown_family_is_taken_as_its_own_graph(
    hub: FakeHub, remote: Path, options: SourceOptions, safetensors: bool
) -> None:
    unknown_family(remote, safetensors=safetensors)
    found = fetch(wanted(), options, hub.calls(), Silent())
    assert isinstance(found, ModelFolder)
    assert hub.asked[-2:] == ["onnx/model.onnx", "onnx/model.onnx_data"]
    assert "model.safetensors" not in hub.asked
    assert cached(hub) == found


def test_an_openvino_graph_comes_as_a_pair(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    (remote / "model.safetensors").unlink()
    (remote / "openvino").mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin", "openvino_model_qint8_quantized.xml"):
        (remote / "openvino" / name).write_bytes(b"graph")
    fetch(wanted(), options, hub.calls(), Silent())
    assert hub.asked[-2:] == ["openvino/openvino_model.xml", "openvino/openvino_model.bin"]


def test_an_unknown_family_without_a_graph_is_refused_before_the_weights(
    hub: FakeHub, remote: Path, options: SourceOptions
) -> None:
    unknown_family(remote, onnx=False)
    with pytest.raises(ModelUnsupported, match=r"of_tomorrow.*no ONNX or OpenVINO"):
        fetch(wanted(), options, hub.calls(), Silent())
    assert hub.asked == ["listing", "config.json", "modules.json"]


def test_pickles_alone_are_refused(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    (remote / "model.safetensors").unlink()
    with pytest.raises(ModelUnsupported, match="reads no pickle"):
        fetch(wanted(), options, hub.calls(), Silent())


def test_a_repository_without_a_config_is_refused(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    (remote / "config.json").unlink()
    with pytest.raises(ModelUnsupported, match=r"no config\.json"):
        fetch(wanted(), options, hub.calls(), Silent())


def test_another_model_than_the_pinned_one_is_refused_before_it_moves(hub: FakeHub, options: SourceOptions) -> None:
    with pytest.raises(ModelBroken, match="pinned"):
        fetch(wanted({"model.safetensors": "0" * 64}), options, hub.calls(), Silent())
    assert "model.safetensors" not in hub.asked


def test_a_hub_that_announces_no_hash_is_checked_all_the_same(hub: FakeHub, options: SourceOptions) -> None:
    hub.sha256["model.safetensors"] = None
    with pytest.raises(ModelBroken, match=r"model\.safetensors: SHA-256"):
        fetch(wanted({"model.safetensors": "0" * 64}), options, hub.calls(), Silent())


def test_the_cache_is_checked_against_the_pin_too(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    fetch(wanted(), options, hub.calls(), Silent())
    assert isinstance(cached(hub, {"model.safetensors": sha256(remote / "model.safetensors")}), ModelFolder)
    with pytest.raises(ModelBroken, match=f"tandem models pull {NAME}"):
        cached(hub, {"model.safetensors": "0" * 64})


@pytest.mark.parametrize("relative", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_was_cut_short_in_the_cache_is_fetched_anew(
    hub: FakeHub, remote: Path, options: SourceOptions, relative: str
) -> None:
    fetch(wanted(), options, hub.calls(), Silent())
    (hub.snapshot / relative).write_bytes((remote / relative).read_bytes()[:-1])
    fetch(wanted(), options, hub.calls(), Silent())
    assert (hub.snapshot / relative).read_bytes() == (remote / relative).read_bytes()


def test_truncated_weights_in_the_cache_are_named(hub: FakeHub, options: SourceOptions) -> None:
    fetch(wanted(), options, hub.calls(), Silent())
    path = hub.snapshot / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelBroken, match=r"model\.safetensors: truncated"):
        cached(hub)


def test_what_does_not_come_as_announced_is_removed_and_named(hub: FakeHub, options: SourceOptions) -> None:
    hub.sha256["model.safetensors"] = "1" * 64
    with pytest.raises(ModelBroken, match=rf"model\.safetensors: came with SHA-256 \w+, not the {'1' * 64}"):
        fetch(wanted(), options, hub.calls(), Silent())
    assert not (hub.snapshot / "model.safetensors").exists()


def test_a_listed_file_that_is_not_there_is_a_failed_download(
    hub: FakeHub, remote: Path, options: SourceOptions
) -> None:
    calls = hub.calls()
    progress = Notes()

    def note(message: str) -> None:
        if message.startswith("fetching"):
            (remote / "tokenizer.json").unlink()

    progress.note = note  # type: ignore[method-assign]
    with pytest.raises(DownloadFailed, match=r"tokenizer\.json"):
        fetch(wanted(), options, calls, progress)


def test_a_repository_that_changes_meanwhile_is_a_failed_download(
    hub: FakeHub, tmp_path: Path, options: SourceOptions
) -> None:
    progress = Notes()

    def note(message: str) -> None:
        if message.startswith("fetching"):
            hub.snapshot = tmp_path / "cache" / "another commit"

    progress.note = note  # type: ignore[method-assign]
    with pytest.raises(DownloadFailed, match="changed on the hub"):
        fetch(wanted(), options, hub.calls(), progress)


def test_a_hub_that_can_not_be_reached_is_an_answer(hub: FakeHub, options: SourceOptions) -> None:
    hub.unreachable = True
    found = fetch(wanted(), options, hub.calls(), Silent())
    assert isinstance(found, NotHere)
    assert "can not be reached" in found.answer


def test_weights_of_another_format_below_the_name_are_named(hub: FakeHub, remote: Path, options: SourceOptions) -> None:
    (remote / "model.safetensors").write_bytes(np.zeros(64, np.uint8).tobytes())
    with pytest.raises(ModelBroken, match=r"model\.safetensors"):
        fetch(wanted(), options, hub.calls(), Silent())
