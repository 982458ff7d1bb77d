"""``kill -9`` at any moment of a bulk job, a full disk, and two jobs at once: no row lost, none doubled.

Children are forked from a server process that has everything imported, so one costs hundredths of a second.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random

import pytest

from tandem.errors import JobError
from tests.live import bulk_child
from tests.unit.bulk.jobs import INPUTS, OUTPUTS, expected, hash_rows, job, run, vectors_of, with_options, write_input

pytestmark = pytest.mark.live

PAIRS = list(itertools.product(INPUTS, OUTPUTS))
TEXTS = [f"text {number}" for number in range(200)]
KILLS = 6


@pytest.fixture(scope="module")
def child() -> Callable[..., ForkServerProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.live.bulk_child"])

    def start(target: Callable[..., object], *args: object) -> ForkServerProcess:
        process = context.Process(target=target, args=args)
        process.start()
        return process

    # The first one starts the server; none of the tests should pay for it.
    start(os.getpid).join()
    return start


def whole(folder: Path, source: Path, suffix: str) -> bytes:
    """The output of a job that nobody interrupts."""
    output = folder / f"whole.{suffix}"
    run(job(source, output))
    return output.read_bytes()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tandem-job")]


@pytest.mark.parametrize(("source", "output"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_killed_at_random_moments(
    tmp_path: Path, child: Callable[..., ForkServerProcess], source: str, output: str
) -> None:
    path, result = write_input(tmp_path / f"in.{source}", TEXTS), tmp_path / f"out.{output}"
    wanted = whole(tmp_path, path, output)
    random = Random(f"{source}-{output}")
    killed = 0
    for _ in range(KILLS):
        process = child(bulk_child.embed_slowly, str(path), str(result))
        process.join(random.uniform(0.01, 0.2))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if result.exists():
            assert result.read_bytes() == wanted
            result.unlink()
    run(with_options(job(path, result), overwrite=True))
    assert killed
    assert result.read_bytes() == wanted
    assert vectors_of(result) == expected(list(TEXTS))
    assert leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS)
def test_killed_before_every_change_on_the_disk(
    tmp_path: Path, child: Callable[..., ForkServerProcess], output: str
) -> None:
    """Every call that writes, syncs, renames or removes is once the one that does not happen any more."""
    path, result = write_input(tmp_path / "in.csv", TEXTS[:8]), tmp_path / f"out.{output}"
    wanted = whole(tmp_path, path, output)
    for calls in itertools.count(1):
        process = child(bulk_child.embed_until, str(path), str(result), calls)
        process.join()
        lived = process.exitcode == 0
        assert lived or process.exitcode == -signal.SIGKILL
        if result.exists():
            assert result.read_bytes() == wanted
        run(with_options(job(path, result), overwrite=True))
        assert result.read_bytes() == wanted
        assert leftovers(tmp_path) == []
        result.unlink()
        if lived:
            break
    assert calls > 30


def test_killed_again_and_again_it_still_ends(tmp_path: Path, child: Callable[..., ForkServerProcess]) -> None:
    """Each run gets a little further than the one before, because what was saved stays saved."""
    path, result = write_input(tmp_path / "in.jsonl", TEXTS[:12]), tmp_path / "out.parquet"
    wanted = whole(tmp_path, path, "parquet")
    # The 40th change comes after the first window is saved, whatever the run had to set up before.
    for _ in range(100):
        process = child(bulk_child.embed_until, str(path), str(result), 40)
        process.join()
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert result.read_bytes() == wanted


def test_two_jobs_at_once_are_one_too_many(tmp_path: Path, child: Callable[..., ForkServerProcess]) -> None:
    path, result = write_input(tmp_path / "in.txt", TEXTS), tmp_path / "out.npy"
    refused: list[JobError] = []

    def embed(texts: list[str]) -> object:
        """While this job is at work, another process tries the same output."""
        if not refused:
            process = child(bulk_child.embed_slowly, str(path), str(result))
            process.join()
            assert process.exitcode == 1
            with pytest.raises(JobError, match="another job is writing") as caught:
                run(job(path, result))
            refused.append(caught.value)
        return hash_rows(texts)

    run(job(path, result), embed)  # type: ignore[arg-type]
    assert refused
    assert vectors_of(result) == expected(list(TEXTS))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_full_disk_keeps_what_is_done(tmp_path: Path, tiny_disk: Path, output: str) -> None:
    texts = [f"text {number}" for number in range(3000)]
    path, result = write_input(tmp_path / "in.jsonl", texts), tiny_disk / f"out.{output}"
    wanted = whole(tmp_path, path, output)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 60_000)
    with pytest.raises(JobError, match=r"no space left for .*: free some, and run the same command again"):
        run(job(path, result))
    assert not result.exists()
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(tiny_disk)], check=True)
    summary = run(job(path, result))
    assert 0 < summary.resumed_at < 3000
    assert result.read_bytes() == wanted
    assert leftovers(tiny_disk) == []
