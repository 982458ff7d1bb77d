from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tandem.clock import ManualClock
from tandem.errors import DownloadFailed, ModelBroken, ModelError, ModelNotFound
from tandem.models import integrity
from tandem.models.progress import Silent
from tandem.models.store import MANIFEST, Manifest, Store
from tests.model_folders import Notes, files_below, sha256, write_model

NAME = "acme/tiny"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, model: Path, *, pins: dict[str, str] | None = None) -> None:
    with store.adding(NAME, Silent()) as incoming:
        shutil.copytree(model, incoming.files, dirs_exist_ok=True)
        incoming.commit("a test", pins or {}, ManualClock(1000.0))


def leftovers(store: Store) -> list[Path]:
    """What an attempt left behind, locks aside: they are empty and meant to stay."""
    return [path for path in store.root.rglob("*") if path.is_file() and ".locks" not in path.parts]


def test_what_was_put_in_is_found_with_its_record(store: Store, model: Path) -> None:
    put(store, model, pins={"model.safetensors": sha256(model / "model.safetensors")})
    found = store.find(NAME)
    assert found is not None
    assert (found.path, found.name, found.source) == (store.path_of(NAME), NAME, "store")
    assert files_below(found.path) == files_below(model) | {MANIFEST}
    manifest = store.manifest(NAME)
    assert manifest is not None
    assert (manifest.origin, manifest.added_s, manifest.fingerprint) == ("a test", 1000.0, found.fingerprint())
    assert {r.path: (r.size_bytes, r.sha256) for r in manifest.files} == {
        name: ((model / name).stat().st_size, sha256(model / name)) for name in files_below(model)
    }
    assert store.names() == [NAME]
    assert store.verify(NAME) == []


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.find(NAME) is None
    assert store.names() == []
    with pytest.raises(ModelNotFound, match=NAME):
        store.remove(NAME)
    assert not store.root.exists()


def test_a_removed_model_is_gone_and_can_come_back(store: Store, model: Path) -> None:
    put(store, model)
    assert store.remove(NAME) > 20_000
    assert store.find(NAME) is None
    assert leftovers(store) == []
    put(store, model)
    assert store.find(NAME) is not None


def test_a_removal_that_was_killed_half_way_is_no_model_and_no_obstacle(store: Store, model: Path) -> None:
    put(store, model)
    (store.path_of(NAME) / MANIFEST).unlink()
    assert store.find(NAME) is None
    assert store.names() == []
    put(store, model)
    assert store.find(NAME) is not None


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("relative", "damage"),
    [
        ("model.safetensors", truncate),
        ("config.json", flip_a_byte),
        ("tokenizer.json", Path.unlink),
        ("1_Pooling/config.json", truncate),
    ],
)
def test_a_damaged_file_is_named_and_not_served(
    store: Store, model: Path, relative: str, damage: Callable[[Path], None]
) -> None:
    put(store, model)
    damage(store.path_of(NAME) / relative)
    with pytest.raises(ModelBroken, match=relative) as caught:
        store.find(NAME)
    assert f"tandem models pull {NAME}" in str(caught.value)
    assert len(store.verify(NAME)) == 1


def zero_a_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[12_288:16_384] = bytes(4096)
    path.write_bytes(content)


@pytest.mark.parametrize("always_bytes", [integrity.HASH_ALWAYS_BYTES, 0])
def test_a_page_of_zeros_in_the_middle_of_the_weights_is_found(
    store: Store, model: Path, always_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "HASH_ALWAYS_BYTES", always_bytes)
    put(store, model)
    assert store.find(NAME) is not None
    zero_a_page(store.path_of(NAME) / "model.safetensors")
    for _ in range(2):
        with pytest.raises(ModelBroken, match=rf"model\.safetensors has SHA-256.*`tandem models pull {NAME}` mends it"):
            store.find(NAME)


def test_a_large_model_is_hashed_once_and_again_after_a_change(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return sha256(path)

    put(store, model)
    monkeypatch.setattr(integrity, "HASH_ALWAYS_BYTES", 0)
    monkeypatch.setattr(integrity, "sha256_file", counting)
    store.find(NAME)
    assert len(hashed) == len(files_below(model))
    hashed.clear()
    store.find(NAME)
    assert hashed == []
    weights = store.path_of(NAME) / "model.safetensors"
    os.utime(weights, ns=(0, 0))
    store.find(NAME)
    assert hashed == ["model.safetensors"]
    (store.path_of(NAME) / integrity.RECORD).write_bytes(b"{")
    hashed.clear()
    assert store.find(NAME) is not None
    assert len(hashed) == len(files_below(model))


def test_a_large_model_in_a_store_that_can_not_be_written_is_hashed_each_time(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, model)
    monkeypatch.setattr(integrity, "HASH_ALWAYS_BYTES", 0)

    def deny(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", deny)
    for _ in range(2):
        assert store.find(NAME) is not None
    assert files_below(store.path_of(NAME)) == files_below(model) | {MANIFEST}


def test_a_file_that_joined_later_is_named(store: Store, model: Path) -> None:
    put(store, model)
    (store.path_of(NAME) / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(ModelBroken, match=r"vocab\.txt was added"):
        store.find(NAME)


def test_what_is_whole_under_an_older_definition_of_the_fingerprint_is_served(store: Store, model: Path) -> None:
    put(store, model)
    path = store.path_of(NAME) / MANIFEST
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, fingerprint="of old")))
    assert store.find(NAME) is not None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": 3}', b"\xff"])
def test_a_damaged_manifest_is_named(store: Store, model: Path, content: bytes) -> None:
    put(store, model)
    (store.path_of(NAME) / MANIFEST).write_bytes(content)
    with pytest.raises(ModelBroken, match=MANIFEST):
        store.find(NAME)


def test_a_wrong_hash_does_not_enter(store: Store, model: Path) -> None:
    with pytest.raises(ModelBroken, match=r"model\.safetensors: SHA-256 is [0-9a-f]{64}, but 'acme/tiny' is pinned"):
        put(store, model, pins={"model.safetensors": "0" * 64})
    assert leftovers(store) == []


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"])
def test_an_incomplete_model_does_not_enter(store: Store, model: Path, missing: str) -> None:
    (model / missing).unlink()
    with pytest.raises(ModelBroken, match=missing.replace(".", r"\.")):
        put(store, model)
    assert leftovers(store) == []


def test_a_pickle_in_the_place_of_weights_is_mentioned_and_not_taken(store: Store, model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelBroken, match=r"pytorch_model\.bin, a pickle, which Tandem does not read"):
        put(store, model)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "no space left for the store"),
        (errno.EDQUOT, "no space left for the store"),
        (errno.EROFS, "can not be written: Read-only file system"),
        (errno.EACCES, "can not be written: Permission denied"),
    ],
)
def test_a_disk_that_takes_no_more_is_told_and_left_clean(
    store: Store, model: Path, number: int, sentence: str
) -> None:
    def fill() -> None:
        with store.adding(NAME, Silent()) as incoming:
            shutil.copytree(model, incoming.files, dirs_exist_ok=True)
            raise OSError(number, os.strerror(number))

    with pytest.raises(DownloadFailed, match=sentence) as caught:
        fill()
    assert str(store.root) in str(caught.value)
    assert "TANDEM_HOME" in str(caught.value)
    assert leftovers(store) == []


def test_a_store_below_a_file_is_told(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "models")
    assert store.find(NAME) is None
    with pytest.raises(DownloadFailed, match="can not be written"):
        put(store, model)


def test_what_may_not_be_read_in_the_store_is_named(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, model)

    def deny(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", deny)
    assert store.names() == [NAME]
    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(ModelBroken, match=rf"{MANIFEST}: can not be read: Permission denied"):
        store.find(NAME)
    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(ModelBroken, match=r"store: can not be read: Permission denied"):
        store.names()


def test_a_model_that_can_not_be_removed_is_named(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, model)

    def deny(self: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", deny)
    with pytest.raises(ModelError, match=r"acme--tiny: can not be removed: Permission denied"):
        store.remove(NAME)


HOLDER = """
    import sys
    from pathlib import Path
    from tandem.clock import ManualClock
    from tandem.models.progress import Silent
    from tandem.models.store import Store
    import shutil

    root, model = map(Path, sys.argv[1:])
    with Store(root).adding("acme/tiny", Silent()) as incoming:
        shutil.copytree(model, incoming.files, dirs_exist_ok=True)
        print("half way", flush=True)
        sys.stdin.readline()
        incoming.commit("the other process", {}, ManualClock())
"""


def holder(store: Store, model: Path) -> subprocess.Popen[str]:
    """Another process that is in the middle of bringing the model in, and goes on at a line on its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(store.root), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    return process


def test_of_two_processes_the_second_waits_and_takes_what_the_first_brought(store: Store, model: Path) -> None:
    with holder(store, model) as other:

        class GoOn(Notes):
            """Lets the first process go on once the second has said that it waits."""

            def note(self, message: str) -> None:
                super().note(message)
                assert other.stdin is not None
                other.stdin.write("go on\n")
                other.stdin.flush()

        progress = GoOn()
        assert store.find(NAME) is None
        with store.adding(NAME, progress) as incoming:
            assert incoming.existing is not None
            assert incoming.existing.path == store.path_of(NAME)
    assert progress.notes == ["another process is fetching acme/tiny; waiting for it"]
    assert other.returncode == 0


def test_what_a_killed_process_left_is_cleared_by_the_next(store: Store, model: Path) -> None:
    with holder(store, model) as other:
        other.send_signal(signal.SIGKILL)
    assert leftovers(store) != []
    assert store.find(NAME) is None
    assert store.names() == []
    put(store, model)
    assert {path.parents[0] for path in leftovers(store)} == {store.path_of(NAME), store.path_of(NAME) / "1_Pooling"}


def test_what_was_left_for_one_model_goes_when_another_is_added(store: Store, model: Path) -> None:
    with holder(store, model) as other:
        other.send_signal(signal.SIGKILL)
    with holder(store, model) as alive:
        working = set((store.root / ".incoming").iterdir())
        with store.adding("acme/other", Silent()):
            assert working < set((store.root / ".incoming").iterdir()), "what a living process holds must stay"
        alive.send_signal(signal.SIGKILL)
    with store.adding("acme/other", Silent()):
        pass
    assert leftovers(store) == []
