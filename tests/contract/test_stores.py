"""What every store must do: regions that are there, aligned, apart, and refused with a reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tandem.clock import SystemClock
from tandem.errors import ConfigError, MemoryExhausted
from tandem.memory import STORES, Pool, PoolOptions, Store, StoreOptions

KINDS: dict[str, Callable[[], Store]] = {
    "host": lambda: STORES.get("host")(StoreOptions()),
    "host, unpopulated": lambda: STORES.get("host")(StoreOptions(populate=False)),
    "shared": lambda: STORES.get("shared")(StoreOptions()),
    "shared, unpopulated": lambda: STORES.get("shared")(StoreOptions(populate=False)),
    "pinned": lambda: STORES.get("pinned")(StoreOptions()),
    "device": lambda: STORES.get("device")(StoreOptions()),
    "device cpu": lambda: STORES.get("device")(StoreOptions(device="cpu")),
}
SIZE = 3 * 4096 + 64


def has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Store:
    if request.param in ("pinned", "device") and not has_cuda():
        pytest.skip("no CUDA device")
    if request.param == "device cpu":
        pytest.importorskip("torch")
    return KINDS[request.param]()


def test_every_store_has_a_test() -> None:
    assert {name.partition(",")[0] for name in KINDS} >= set(STORES)


def test_a_region_has_its_size_and_its_alignment(store: Store) -> None:
    region = store.allocate(SIZE)
    assert region.nbytes == SIZE == len(region.buffer)
    assert region.address % store.alignment == 0
    store.free(region)


def test_what_is_written_is_read_and_stays_in_its_region(store: Store) -> None:
    one, other = store.allocate(SIZE), store.allocate(SIZE)
    one.buffer[:] = bytes([7]) * SIZE if store.on_host else 7
    other.buffer[:] = bytes([9]) * SIZE if store.on_host else 9
    assert int(one.buffer[0]) == int(one.buffer[SIZE - 1]) == 7
    assert int(other.buffer[0]) == int(other.buffer[SIZE - 1]) == 9
    store.free(one)
    assert int(other.buffer[SIZE // 2]) == 9
    store.free(other)


def test_what_the_system_has_not_is_refused(store: Store) -> None:
    with pytest.raises(MemoryExhausted, match="1,125,899,906,842,624 bytes"):
        store.allocate(1 << 50)


def test_a_pool_runs_on_it(store: Store) -> None:
    pool = Pool(store, PoolOptions(budget_bytes=1 << 16), SystemClock())
    block = pool.take(1000)
    assert len(block.view()) == 1000
    assert (block.region.address + block.offset) % store.alignment == 0
    pool.give(block)
    pool.check()
    pool.close()
    assert pool.statistics().reserved_bytes == 0


@pytest.mark.skipif(has_cuda(), reason="this machine has CUDA")
@pytest.mark.parametrize("name", ["pinned", "device"])
def test_without_cuda_the_message_says_so(name: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ConfigError, match=f"{name} memory needs a CUDA device"):
        STORES.get(name)(StoreOptions())


CHILD = """
import sys
from tandem.memory.stores import attach
region = attach(int(sys.argv[1]), int(sys.argv[2]))
assert region.address % 64 == 0
view = region.buffer
view[64:67] = bytes(reversed(view[0:3]))
print("done", flush=True)
sys.stdin.read()
"""


def child(fd: int, nbytes: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(fd), str(nbytes)],
        pass_fds=(fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_child_process_sees_the_same_bytes_and_leaves_nothing_when_killed() -> None:
    from tandem.memory.stores import SharedStore

    before = sorted(path.name for path in Path("/dev/shm").iterdir())
    region = SharedStore(StoreOptions()).allocate(SIZE)
    region.buffer[0:3] = b"abc"
    with child(region.fileno(), region.nbytes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        assert bytes(region.buffer[64:67]) == b"cba"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert bytes(region.buffer[64:67]) == b"cba", "the parent keeps what is in it"
    assert sorted(path.name for path in Path("/dev/shm").iterdir()) == before


def test_a_shared_region_can_not_be_cut_under_its_readers() -> None:
    from tandem.memory.stores import SharedStore

    region = SharedStore(StoreOptions()).allocate(SIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(region.fileno(), 0)


def test_a_freed_shared_region_closes_its_file_and_keeps_what_is_viewed() -> None:
    from tandem.memory.stores import SharedStore

    store = SharedStore(StoreOptions())
    region = store.allocate(SIZE)
    view, fd = np.frombuffer(region.buffer, np.uint8), region.fileno()
    view[:] = 5
    store.free(region)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    del region
    assert view.min() == 5
