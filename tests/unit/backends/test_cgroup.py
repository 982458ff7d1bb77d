"""Control groups as files in a folder of our own: version 2, version 1, both, nested, and nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from tandem.backends.cgroup import cpu_quota, memory_limit_bytes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def member_of(root: Path, lines: str) -> Path:
    file = root.parent / "self.cgroup"
    file.write_text(lines)
    return file


def test_no_groups_no_limit(root: Path) -> None:
    nowhere = root / "nothing"
    assert cpu_quota(root, nowhere) is None
    assert memory_limit_bytes(root, nowhere) is None


def test_version_2(root: Path) -> None:
    membership = member_of(root, "0::/\n")
    put(root / "cpu.max", "150000 100000\n")
    put(root / "memory.max", "4294967296\n")
    assert cpu_quota(root, membership) == 1.5
    assert memory_limit_bytes(root, membership) == 4 << 30


def test_version_2_without_a_limit(root: Path) -> None:
    membership = member_of(root, "0::/\n")
    put(root / "cpu.max", "max 100000\n")
    put(root / "memory.max", "max\n")
    assert cpu_quota(root, membership) is None
    assert memory_limit_bytes(root, membership) is None


def test_the_tightest_up_the_tree_holds(root: Path) -> None:
    membership = member_of(root, "0::/system.slice/tandem.service\n")
    put(root / "cpu.max", "max 100000\n")
    put(root / "system.slice" / "cpu.max", "200000 100000\n")
    put(root / "system.slice" / "tandem.service" / "cpu.max", "400000 100000\n")
    put(root / "system.slice" / "other.service" / "cpu.max", "10000 100000\n")
    put(root / "system.slice" / "tandem.service" / "memory.max", "1000\n")
    assert cpu_quota(root, membership) == 2.0
    assert memory_limit_bytes(root, membership) == 1000


def test_version_1(root: Path) -> None:
    membership = member_of(root, "5:memory:/\n4:cpu,cpuacct:/\n1:name=systemd:/x\n")
    put(root / "cpu" / "cpu.cfs_quota_us", "250000\n")
    put(root / "cpu" / "cpu.cfs_period_us", "100000\n")
    put(root / "memory" / "memory.limit_in_bytes", "2147483648\n")
    assert cpu_quota(root, membership) == 2.5
    assert memory_limit_bytes(root, membership) == 2 << 30


def test_version_1_without_a_limit(root: Path) -> None:
    membership = member_of(root, "4:cpu,cpuacct:/\n")
    put(root / "cpu" / "cpu.cfs_quota_us", "-1\n")
    put(root / "cpu" / "cpu.cfs_period_us", "100000\n")
    put(root / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    assert cpu_quota(root, membership) is None
    assert memory_limit_bytes(root, membership) is None


def test_version_1_in_a_group_of_its_own(root: Path) -> None:
    membership = member_of(root, "5:memory:/jobs/one\n4:cpu,cpuacct:/jobs/one\n0::/elsewhere\n")
    put(root / "cpu" / "jobs" / "one" / "cpu.cfs_quota_us", "50000\n")
    put(root / "cpu" / "jobs" / "one" / "cpu.cfs_period_us", "100000\n")
    put(root / "memory" / "jobs" / "memory.limit_in_bytes", "4096\n")
    assert cpu_quota(root, membership) == 0.5
    assert memory_limit_bytes(root, membership) == 4096


@pytest.mark.parametrize("text", ["", "lots of CPU", "100000", "1e5 100000", "100000 0", "-5 100000", "max", "\xff"])
def test_nonsense_grants_without_limit(root: Path, text: str) -> None:
    membership = member_of(root, "0::/\nnot a line\n\n7\n")
    put(root / "cpu.max", text)
    put(root / "memory.max", text if text != "100000" else "")
    put(root / "cpu" / "cpu.cfs_quota_us", text)
    assert cpu_quota(root, membership) is None
    assert memory_limit_bytes(root, membership) is None


def test_a_path_that_climbs_out_reads_nothing_else(root: Path) -> None:
    put(root.parent / "cpu.max", "100000 100000\n")
    put(root.parent.parent / "cpu.max", "100000 100000\n")
    root.mkdir()
    assert cpu_quota(root, member_of(root, "0::/../other\n")) is None
