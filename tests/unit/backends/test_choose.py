from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tandem.backends.choose import Choice, Wish, candidates, choose, options_for
from tandem.backends.cpu import CpuInfo
from tandem.backends.probe import ProbeJob, Probes, Verdict
from tandem.errors import BackendFailed, ConfigError
from tandem.models.folder import ModelFolder
from tandem.types import Tier
from tests.model_folders import write_model

PLAIN = CpuInfo("a CPU", 2, 2, None, ("avx2",))
BF16 = CpuInfo("a newer CPU", 2, 2, None, ("avx2", "avx512f", "avx512_bf16"))
OV, ORT = "openvino", "onnxruntime"


@pytest.mark.parametrize(
    ("wish", "cpu", "machine", "expected"),
    [
        (Wish(), PLAIN, "x86_64", [(OV, Tier.FP32), (ORT, Tier.FP32)]),
        (Wish(), BF16, "x86_64", [(OV, Tier.BF16), (OV, Tier.FP32), (ORT, Tier.FP32)]),
        (Wish(), BF16, "AMD64", [(OV, Tier.BF16), (OV, Tier.FP32), (ORT, Tier.FP32)]),
        (Wish(precision="fp32"), BF16, "x86_64", [(OV, Tier.FP32), (ORT, Tier.FP32)]),
        # Emulated bf16 is slower than fp32 and less exact; fp32 serves whoever asked for bf16.
        (Wish(precision="bf16"), PLAIN, "x86_64", [(OV, Tier.FP32), (ORT, Tier.FP32)]),
        (Wish(), PLAIN, "aarch64", [(ORT, Tier.FP32), (OV, Tier.FP32)]),
        (Wish(backend=ORT), BF16, "x86_64", [(ORT, Tier.FP32)]),
        (Wish(backend=OV), BF16, "x86_64", [(OV, Tier.BF16), (OV, Tier.FP32)]),
        (Wish(backend=OV, precision="bf16"), BF16, "aarch64", [(OV, Tier.BF16), (OV, Tier.FP32)]),
    ],
)
def test_candidates(wish: Wish, cpu: CpuInfo, machine: str, expected: list[tuple[str, Tier]]) -> None:
    assert candidates(wish, cpu, machine) == expected


def test_an_unknown_backend_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown backend 'tpu'; known are: openvino, onnxruntime"):
        candidates(Wish(backend="tpu"), PLAIN)


@pytest.mark.parametrize(
    ("wish", "cpus", "threads", "streams"),
    [
        (Wish(), 1, 1, 1),
        (Wish(), 2, 2, 2),
        (Wish(), 4, 4, 4),
        (Wish(), 8, 8, 4),
        (Wish(), 64, 64, 16),
        (Wish(threads=3), 64, 3, 3),
        (Wish(streams=1), 4, 4, 1),
        (Wish(streams=9), 4, 4, 4),
        (Wish(threads=8, streams=2), 1, 8, 2),
    ],
)
def test_threads_and_streams(wish: Wish, cpus: int, threads: int, streams: int) -> None:
    options = options_for(wish, msgspec.structs.replace(PLAIN, cpus=cpus), Tier.FP32)
    assert (options.threads, options.streams) == (threads, streams)


class Answers:
    """What a probe finds, by engine and tier; everything else dies of SIGFPE."""

    def __init__(self, *good: tuple[str, Tier]) -> None:
        self.good = good
        self.asked: list[tuple[str, Tier]] = []

    def __call__(self, job: ProbeJob) -> Verdict:
        self.asked.append((job.backend, job.options.tier))
        if self.asked[-1] in self.good:
            return Verdict(ok=True, why="cosine 1")
        return Verdict(ok=False, why="was ended by SIGFPE: it does not suit this CPU")


def chosen(folder: Path, answers: Answers, backend: str = "auto") -> Choice:
    return choose(
        Wish(backend=backend), BF16, ModelFolder(write_model(folder), "acme/tiny", "folder"), Probes(attempt=answers)
    )


def test_the_first_that_is_right_is_taken(tmp_path: Path) -> None:
    answers = Answers((OV, Tier.BF16), (OV, Tier.FP32))
    choice = chosen(tmp_path, answers, OV)
    assert (choice.backend, choice.options.tier) == (OV, Tier.BF16)
    assert answers.asked == [(OV, Tier.BF16)]
    assert [one.ok for one in choice.tried] == [True]


def test_an_engine_that_dies_by_signal_is_passed_over_with_a_line(tmp_path: Path) -> None:
    choice = chosen(tmp_path, Answers((ORT, Tier.FP32)))
    assert (choice.backend, choice.options.tier) == (ORT, Tier.FP32)
    assert [one.ok for one in choice.tried][-1]
    assert all("SIGFPE" in one.why for one in choice.tried if one.backend == OV)


def test_when_none_works_each_says_why(tmp_path: Path) -> None:
    with pytest.raises(BackendFailed, match="no inference engine works on cpu for acme/tiny") as told:
        chosen(tmp_path, Answers())
    assert "openvino fp32 was ended by SIGFPE" in str(told.value)
    assert "onnxruntime fp32 was ended by SIGFPE" in str(told.value)


def test_a_job_names_the_model_and_the_options(tmp_path: Path) -> None:
    jobs: list[ProbeJob] = []

    def attempt(job: ProbeJob) -> Verdict:
        jobs.append(job)
        return Verdict(ok=True, why="fine")

    folder = ModelFolder(write_model(tmp_path), "acme/tiny", "folder")
    choice = choose(Wish(threads=2), BF16, folder, Probes(attempt=attempt))
    assert jobs[0].folder == str(tmp_path)
    assert jobs[0].options == choice.options
