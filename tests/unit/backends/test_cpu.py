from __future__ import annotations

import os
from pathlib import Path

import pytest

from tandem.backends.cpu import CorePlan, cpu_info, describe_cpu, plan_cores, usable_cores

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


def cores(count: int) -> tuple[int, ...]:
    return tuple(range(count))


@pytest.mark.parametrize(
    ("count", "workers", "plan"),
    [
        # A worker on the CPU: on a small machine the server sits with it, on a large one it has a core of its own.
        (1, (0,), CorePlan((0,), ((0,),))),
        (2, (0,), CorePlan((0, 1), ((0, 1),))),
        (7, (0,), CorePlan(cores(7), (cores(7),))),
        (8, (0,), CorePlan((0,), ((1, 2, 3, 4, 5, 6, 7),))),
        # Two of them: a half each.
        (2, (0, 0), CorePlan((0, 1), ((0,), (1,)))),
        (5, (0, 0), CorePlan(cores(5), ((0, 1, 2), (3, 4)))),
        (2, (1, 1), CorePlan(None, ((0,), (1,)))),
        # One that only feeds a GPU, alone and beside one on the CPU, whose cores the server shares.
        (4, (1,), CorePlan((0, 1, 2), ((3,),))),
        (4, (1, 0), CorePlan((1, 2, 3), ((0,), (1, 2, 3)))),
        (16, (1, 0), CorePlan((0,), ((1,), tuple(range(2, 16))))),
        # Too few: nobody is bound.
        (1, (1, 0), CorePlan(None, (None, None))),
        (2, (1, 2), CorePlan(None, (None, None))),
        (0, (0, 0), CorePlan(None, (None, None))),
        (0, (0,), CorePlan(None, (None,))),
    ],
)
def test_cores_are_shared_out(count: int, workers: tuple[int, ...], plan: CorePlan) -> None:
    assert plan_cores(cores(count), workers) == plan


def test_a_server_that_feeds_a_gpu_may_ask_for_more() -> None:
    assert plan_cores(cores(17), (1, 0), server=2) == CorePlan((0, 1), ((2,), tuple(range(3, 17))))
    assert plan_cores(cores(16), (1, 0), server=2).server == tuple(range(1, 16)), "more than an eighth"


def test_neighbouring_cores_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    for cpu, (package, core) in enumerate([(0, 0), (1, 0), (0, 0), (1, 0)]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{package}\n")
        (folder / "core_id").write_text(f"{core}\n")
    assert usable_cores(None, tmp_path) == (0, 2, 1, 3)
    assert usable_cores(4.0, tmp_path) == (0, 2, 1, 3)
    assert usable_cores(3.5, tmp_path) == (), "a share of time is no set of cores"
    assert usable_cores(None, tmp_path / "gone") == (0, 1, 2, 3)
