from __future__ import annotations

import os
from pathlib import Path

import pytest

from tandem.backends.cpu import cpu_info, describe_cpu

EPYC = """\
processor	: 0
model name	: AMD EPYC 9755
flags		: fpu avx avx2 avx512f avx512_vnni avx512_bf16 avx_vnni

processor	: 1
model name	: AMD EPYC 9755
flags		: fpu avx avx2
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 sve\nCPU part\t: 0xd40\n"


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    file = tmp_path / "cpuinfo"
    file.write_text(EPYC)
    return file


def test_model_and_instruction_sets(cpuinfo: Path) -> None:
    found = describe_cpu(cpuinfo, 2, None)
    assert found.model == "AMD EPYC 9755"
    assert found.flags == ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni")
    assert found.native_bf16


def test_an_arm_cpu_has_features(cpuinfo: Path) -> None:
    cpuinfo.write_text(ARM)
    found = describe_cpu(cpuinfo, 4, None)
    assert found.flags == ("asimd", "bf16")
    assert found.model
    assert not found.native_bf16, "OpenVINO computes bf16 natively with AVX-512 or AMX alone"


def test_a_system_without_the_file(tmp_path: Path) -> None:
    found = describe_cpu(tmp_path / "gone", 3, None)
    assert (found.cpus, found.flags) == (3, ())


@pytest.mark.parametrize(
    ("affinity", "quota", "cpus"),
    [(8, None, 8), (8, 4.0, 4), (8, 2.5, 2), (8, 2.97, 3), (8, 0.5, 1), (2, 16.0, 2), (1, 0.1, 1)],
)
def test_cpus_are_what_affinity_and_quota_leave(cpuinfo: Path, affinity: int, quota: float | None, cpus: int) -> None:
    assert describe_cpu(cpuinfo, affinity, quota).cpus == cpus


def test_this_machine_has_a_cpu() -> None:
    found = cpu_info()
    assert 1 <= found.cpus <= found.affinity <= (os.cpu_count() or 1)
