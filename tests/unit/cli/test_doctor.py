from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.backends import BACKENDS
from tandem.backends.probe import ProbeJob, Verdict
from tandem.cli import checkup
from tandem.cli.checkup import nvidia_gpus
from tandem.cli.main import main
from tests.engines import write_word_model

SIGFPE = Verdict(ok=False, why="was ended by SIGFPE: it does not suit this CPU")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folders, none of them there yet."""
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_word_model(tmp_path / "tiny"))


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], home: Path) -> pytest.CaptureFixture[str]:
    return capsys


def examine(shown: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", "--port", "0", *words])
    return code, json.loads(shown.readouterr().out)


def states(found: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(one["backend"], one["tier"]): one["state"] for one in found["candidates"]}


def test_a_machine_that_can_serve(shown: pytest.CaptureFixture[str], model: str) -> None:
    code, found = examine(shown, model, "--backend", "onnxruntime")
    assert code == 0
    assert found["can_serve"] is True
    assert found["problems"] == []
    assert found["model"]["family"] == "bert"
    assert (found["model"]["dims"], found["model"]["max_tokens"], found["model"]["source"]) == (16, 20, "folder")
    (chosen,) = found["candidates"]
    assert (chosen["backend"], chosen["tier"], chosen["state"]) == ("onnxruntime", "fp32", "chosen")
    assert 0.99999 < chosen["cosine"] <= 1.0 + 1e-6
    assert not chosen["kept"]
    assert found["machine"]["cpu"]["cpus"] >= 1
    assert found["machine"]["threads"] >= found["machine"]["streams"] >= 1
    assert set(found["engines"]) == set(BACKENDS)
    assert all(found["engines"].values())


def test_the_same_for_people(shown: pytest.CaptureFixture[str], model: str) -> None:
    assert main(["doctor", model, "--backend", "onnxruntime", "--port", "0"]) == 0
    lines = shown.readouterr().out.splitlines()
    names = [line.split(" ", 1)[0] for line in lines[1:10]]
    assert names == ["cpu", "sets", "memory", "gpu", "engines", "store", "settings", "address", "model"]
    assert lines[0].startswith("tandem 0.")
    assert any("cosine to the reference" in line for line in lines)
    assert lines[-1] == "This machine can serve it."


def test_a_model_that_is_not_here_is_not_fetched(shown: pytest.CaptureFixture[str], home: Path) -> None:
    code, found = examine(shown)
    assert code == 4
    assert found["model"] is None
    assert "`tandem models pull sentence-transformers/all-MiniLM-L6-v2` fetches it" in found["problems"][0]
    assert set(states(found).values()) == {"not tried"}
    assert not home.exists()


def test_a_model_is_fetched_when_asked_to(shown: pytest.CaptureFixture[str]) -> None:
    code, found = examine(shown, "acme/no-such-model", "--pull", "--no-use-hub", "--no-use-package-index")
    assert code == 4
    assert "no source has the model 'acme/no-such-model'" in found["problems"][0]


def test_a_broken_model_is_named(shown: pytest.CaptureFixture[str], model: str) -> None:
    (Path(model) / "model.safetensors").write_bytes(b"cut")
    code, found = examine(shown, model)
    assert code == 4
    assert "model.safetensors" in found["problems"][0]
    assert main(["doctor", model, "--port", "0"]) == 4
    assert "can not serve it as it is:\n  - " in shown.readouterr().out


def test_an_engine_that_dies_is_refused_with_a_line(
    shown: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(job: ProbeJob) -> Verdict:
        good = Verdict(ok=True, why="cosine to the reference 1.0", cosine=1.0, reference=b"rows")
        return SIGFPE if job.backend == "openvino" else good

    monkeypatch.setattr("tandem.backends.probe.in_child", attempt)
    code, found = examine(shown, model, "--precision", "fp32")
    assert code == 0
    assert states(found)["onnxruntime", "fp32"] == "chosen"
    for one in found["candidates"]:
        if one["state"] == "refused":
            assert (one["why"], one["cosine"]) == (SIGFPE.why, None)


def test_no_engine_works(shown: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.backends.probe.in_child", lambda job: SIGFPE)
    code, found = examine(shown, model)
    assert code == 4
    assert set(states(found).values()) == {"refused"}
    assert found["problems"] == ["no inference engine works here for this model"]


def test_all_engines_are_tried_when_asked_to(shown: pytest.CaptureFixture[str], model: str) -> None:
    code, found = examine(shown, model, "--precision", "fp32", "--try-all")
    assert code == 0
    assert list(states(found).values()) == ["chosen", "fits"]
    assert all(one["cosine"] > 0.99999 for one in found["candidates"])


def test_kept_verdicts_are_used_unless_fresh(shown: pytest.CaptureFixture[str], model: str, home: Path) -> None:
    words = (model, "--backend", "onnxruntime")
    examine(shown, *words)
    (file,) = (home / "probes").iterdir()
    kept = msgspec.json.decode(file.read_bytes(), type=Verdict)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(kept, why="as I said")))
    _, found = examine(shown, *words)
    assert (found["candidates"][0]["why"], found["candidates"][0]["kept"]) == ("as I said", True)
    assert main(["doctor", *words, "--port", "0"]) == 0
    assert "--fresh tries again" in shown.readouterr().out
    _, found = examine(shown, *words, "--fresh")
    assert found["candidates"][0]["why"] != "as I said"
    assert not found["candidates"][0]["kept"]


def test_settings_are_shown_and_secrets_are_not(
    shown: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TANDEM_API_KEYS", "s3cret,0ther")
    (tmp_path / "tandem.toml").write_text('cors_origins = ["https://a", "https://b"]\n')
    _, found = examine(shown, model, "--backend", "fake", "--config", str(tmp_path / "tandem.toml"))
    expected = {"api_keys": "2 hidden", "cors_origins": "https://a, https://b", "backend": "fake", "port": "0"}
    assert found["settings"] == {**expected, "model": model}
    main(["doctor", model, "--backend", "fake", "--port", "0"])
    output = shown.readouterr()
    assert "s3cret" not in output.out + output.err
    assert "api_keys = 2 hidden" in output.out


def test_the_fake_backend_is_said_to_be_one(shown: pytest.CaptureFixture[str], model: str) -> None:
    code, found = examine(shown, model, "--backend", "fake")
    assert code == 0
    assert "test double" in found["candidates"][0]["why"]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def test_a_port_in_use_is_a_problem(shown: pytest.CaptureFixture[str], model: str, taken: int) -> None:
    code, found = examine(shown, model, "--backend", "fake", "--port", str(taken))
    assert code == 4
    assert f"can not listen on 127.0.0.1:{taken}" in found["problems"][0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--api-key-file", "/no/keys"), "/no/keys"),
        (("--tls-cert-file", "/no/cert", "--tls-key-file", "/no/key"), "can not use the certificate '/no/cert'"),
    ],
)
def test_files_that_a_server_needs(
    shown: pytest.CaptureFixture[str], model: str, words: tuple[str, ...], told: str
) -> None:
    code, found = examine(shown, model, "--backend", "fake", *words)
    assert code == 4
    assert told in found["problems"][0]


def test_wrong_settings_are_usage(shown: pytest.CaptureFixture[str], model: str) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["doctor", model, "--backend", "tpu"])
    assert leave.value.code == 2
    assert "invalid choice: 'tpu'" in shown.readouterr().err
    assert main(["doctor", model, "--threads", "many"]) == 2


def test_gpus_in_their_drivers_words(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'NVIDIA H200, 143771 MiB, 550.54\\nNVIDIA H200, 143771 MiB, 550.54\\n\\n'\n")
    tool.chmod(0o755)
    assert nvidia_gpus(tmp_path, str(tool)) == ["NVIDIA H200, 143771 MiB, 550.54"] * 2


def test_gpus_without_their_tool_or_with_a_broken_one(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    devices = [str(tmp_path / "nvidia0"), str(tmp_path / "nvidia1")]
    assert nvidia_gpus(tmp_path, "no-such-tool") == devices
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    tool.chmod(0o755)
    assert nvidia_gpus(tmp_path, str(tool)) == devices
    assert nvidia_gpus(tmp_path / "empty", "no-such-tool") == []


def test_gpus_are_shown_as_their_driver_calls_them(
    shown: pytest.CaptureFixture[str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "nvidia_gpus", lambda: ["NVIDIA H200, 143771 MiB, 550.54"])
    main(["doctor", model, "--backend", "fake", "--port", "0"])
    assert "gpu       NVIDIA H200, 143771 MiB, 550.54\n" in shown.readouterr().out


def test_each_device_is_judged_and_one_that_serves_is_enough(shown: pytest.CaptureFixture[str], model: str) -> None:
    code, found = examine(shown, model, "--backend", "onnxruntime", "--precision", "fp32", "--device", "cpu*2+cuda:7")
    assert code == 0
    assert [(one["device"], one["state"]) for one in found["candidates"]] == [("cpu", "chosen"), ("cuda:7", "refused")]
    assert examine(shown, model, "--precision", "fp32", "--device", "cuda:7")[0] == 4


def test_help_names_what_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["doctor", "--help"])
    assert leave.value.code == 0
    page = capsys.readouterr().out
    assert all(word in page for word in ("--fresh", "--try-all", "--pull", "--json", "--config", "--precision"))
