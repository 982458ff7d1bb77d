"""Probes with a child that ends in every way a child can, and verdicts on disk in every state a file can have."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tandem.backends import BackendOptions
from tandem.backends.cpu import CpuInfo
from tandem.backends.probe import ProbeJob, Probes, Verdict, gpus_in_words, in_child, probe, run_job
from tandem.backends.proof import PROBE_TEXTS
from tandem.errors import ModelBroken
from tests.engines import write_word_model

CPU = CpuInfo("a CPU", 2, 2, None, ("avx2",))
JOB = ProbeJob(backend="onnxruntime", options=BackendOptions(), folder="/nowhere", name="tiny")
GOOD = Verdict(ok=True, why="fine", cosine=1.0, reference=np.ones((len(PROBE_TEXTS), 4), np.float32).tobytes())
BAD = Verdict(ok=False, why="wrong")


def child(program: str) -> Verdict:
    return in_child(JOB, [sys.executable, "-c", program], 30.0)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", "was ended by SIGFPE: it does not suit this CPU"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "was ended by SIGILL: it does not suit this CPU"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL: most likely for want of memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)", "was ended by signal 37"),
        ("raise ValueError('no such kernel')", "failed: ValueError: no such kernel"),
        ("raise SystemExit(7)", "failed: exit code 7"),
        ("print('hello')", "failed: exit code 0"),
        ("import sys; sys.stderr.buffer.write(bytes([255, 10])); sys.exit(1)", "failed: \ufffd"),
        ("import sys; sys.stdin.close(); sys.exit('it closed its ears')", "failed: it closed its ears"),
    ],
)
def test_however_a_child_ends_there_is_a_line(program: str, why: str) -> None:
    verdict = child(program)
    assert not verdict.ok
    assert why in verdict.why


def test_a_child_that_hangs_is_ended() -> None:
    verdict = in_child(JOB, [sys.executable, "-c", "import signal; signal.pause()"], 0.2)
    assert verdict == Verdict(ok=False, why="gave no answer in 0.2 s")


def test_a_child_that_can_not_be_started() -> None:
    verdict = in_child(JOB, ["/no/such/python"], 1.0)
    assert not verdict.ok
    assert "could not be tried" in verdict.why


def test_a_child_answers_with_a_verdict() -> None:
    answer = msgspec.json.encode(GOOD)
    assert child(f"import sys; sys.stdout.buffer.write({answer!r})") == GOOD


def test_the_folder_one_stands_in_holds_no_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "random", "tandem", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    verdict = in_child(JOB)
    assert "wrong module" not in verdict.why
    assert "config.json" in verdict.why or "nowhere" in verdict.why


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_real_engine_in_a_real_child_is_right(tmp_path: Path, backend: str) -> None:
    folder = write_word_model(tmp_path / "tiny")
    job = msgspec.structs.replace(JOB, backend=backend, folder=str(folder))
    verdict = in_child(job)
    assert verdict.ok, verdict.why
    assert verdict.cosine > 0.99999
    assert verdict.reference_rows(len(PROBE_TEXTS)).shape == (len(PROBE_TEXTS), 16)


def test_a_broken_model_is_an_error_here_and_a_line_from_the_child(tmp_path: Path) -> None:
    folder = write_word_model(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"cut")
    job = msgspec.structs.replace(JOB, folder=str(folder))
    with pytest.raises(ModelBroken):
        run_job(job)
    verdict = in_child(job)
    assert not verdict.ok
    assert "model.safetensors" in verdict.why


def test_an_engine_that_is_not_installed_is_a_line(tmp_path: Path) -> None:
    """Its child fails to import it; nothing is kept under a version that is not known."""
    job = msgspec.structs.replace(JOB, backend="no-such-engine")
    assert probe(job, CPU, "f00d", Probes(cache=tmp_path, attempt=lambda job: BAD)) == BAD
    assert not probe(job, CPU, "f00d", Probes(cache=tmp_path)).ok
    assert list(tmp_path.iterdir()) == []


class Attempts:
    """Counts, and answers what it was told to."""

    def __init__(self, *answers: Verdict) -> None:
        self.answers = list(answers)
        self.count = 0

    def __call__(self, job: ProbeJob) -> Verdict:
        self.count += 1
        return self.answers.pop(0)


def test_a_good_verdict_is_kept(tmp_path: Path) -> None:
    attempts = Attempts(GOOD)
    probes = Probes(cache=tmp_path / "probes", attempt=attempts)
    kept = msgspec.structs.replace(GOOD, kept=True)
    assert [probe(JOB, CPU, "f00d", probes) for _ in range(3)] == [GOOD, kept, kept]
    assert attempts.count == 1
    assert len(list((tmp_path / "probes").iterdir())) == 1, "no scratch file stays"


def test_a_bad_verdict_is_not(tmp_path: Path) -> None:
    attempts = Attempts(BAD, GOOD)
    probes = Probes(cache=tmp_path, attempt=attempts)
    assert [probe(JOB, CPU, "f00d", probes) for _ in range(2)] == [BAD, GOOD]


@pytest.mark.parametrize(
    ("job", "cpu", "fingerprint"),
    [
        (msgspec.structs.replace(JOB, options=BackendOptions(threads=3)), CPU, "f00d"),
        (msgspec.structs.replace(JOB, backend="openvino"), CPU, "f00d"),
        (JOB, msgspec.structs.replace(CPU, flags=("avx2", "avx512f")), "f00d"),
        (JOB, msgspec.structs.replace(CPU, model="another CPU"), "f00d"),
        (JOB, CPU, "beef"),
    ],
)
def test_what_could_change_a_verdict_asks_for_a_new_one(
    tmp_path: Path, job: ProbeJob, cpu: CpuInfo, fingerprint: str
) -> None:
    attempts = Attempts(GOOD, GOOD)
    probes = Probes(cache=tmp_path, attempt=attempts)
    probe(JOB, CPU, "f00d", probes)
    probe(job, cpu, fingerprint, probes)
    assert attempts.count == 2


def test_the_models_place_does_not_matter(tmp_path: Path) -> None:
    attempts = Attempts(GOOD)
    probes = Probes(cache=tmp_path, attempt=attempts)
    probe(JOB, CPU, "f00d", probes)
    probe(msgspec.structs.replace(JOB, folder="/elsewhere", name="other"), CPU, "f00d", probes)
    assert attempts.count == 1


def kept(reference: bytes) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(GOOD, reference=reference))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[1]",
        b'{"ok": true}',
        b'{"ok": true, "why": "", "reference": "%%%"}',
        kept(b""),
        kept(GOOD.reference[:-3]),
        msgspec.json.encode(BAD),
        msgspec.json.encode(GOOD)[:-20],
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_damaged_verdict_is_made_anew(tmp_path: Path, content: bytes) -> None:
    attempts = Attempts(GOOD, GOOD)
    probes = Probes(cache=tmp_path, attempt=attempts)
    probe(JOB, CPU, "f00d", probes)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert probe(JOB, CPU, "f00d", probes) == GOOD
    assert attempts.count == 2
    assert msgspec.json.decode(file.read_bytes(), type=Verdict) == GOOD


def test_fresh_asks_again_and_throws_away_what_no_longer_holds(tmp_path: Path) -> None:
    attempts = Attempts(GOOD, BAD, BAD)
    probe(JOB, CPU, "f00d", Probes(cache=tmp_path, attempt=attempts))
    assert probe(JOB, CPU, "f00d", Probes(cache=tmp_path, fresh=True, attempt=attempts)) == BAD
    assert list(tmp_path.iterdir()) == []
    assert probe(JOB, CPU, "f00d", Probes(cache=tmp_path, attempt=attempts)) == BAD


def test_a_place_that_can_not_be_written_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    assert probe(JOB, CPU, "f00d", Probes(cache=file / "probes", attempt=Attempts(GOOD))) == GOOD
    assert "was not kept" in caplog.text


def test_without_a_place_nothing_is_kept() -> None:
    attempts = Attempts(GOOD, GOOD)
    for _ in range(2):
        probe(JOB, CPU, "f00d", Probes(attempt=attempts))
    assert attempts.count == 2


def test_a_gpu_is_known_by_what_its_driver_says(tmp_path: Path) -> None:
    assert gpus_in_words(tmp_path) == ()
    for name, text in (("version", "NVRM 550"), ("gpus/0000:01:00.0/information", "Model: H200"), ("params", "x")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert gpus_in_words(tmp_path) == ("NVRM 550", "Model: H200")
