from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = """
import mmap
from tandem.memory.measure import peak_bytes
def take(mib):
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, mib << 20, flags=flags).close()
    return mib
print(peak_bytes(lambda: take(64), lambda _: take(32)), peak_bytes(lambda: None, lambda _: None))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_peak_is_of_the_work_alone_and_seen_after_it_is_over() -> None:
    found = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout.split()
    if found[0] == "None":
        pytest.skip("this system does not let a process reset its peak")
    peak, nothing = map(int, found)
    assert 31 << 20 <= peak < 36 << 20
    assert nothing < 4 << 20
