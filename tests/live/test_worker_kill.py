"""A worker's process is killed under load, and processes end that have one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tandem.backends.child_process import environment
from tandem.clock import SystemClock
from tandem.workers.ledger import RestartOptions
from tandem.workers.process import ProcessWorker, WorkerSpec
from tests import worker_load
from tests.conftest import REPOSITORY
from tests.worker_load import Load, batches

pytestmark = pytest.mark.live

KILLS = 3


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessWorker]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    restarts = RestartOptions(good_s=0.0)
    worker = ProcessWorker(WorkerSpec(device_id="cpu", build=worker_load.fake, restarts=restarts), SystemClock())
    yield worker
    worker.close()


def test_kills_under_load_lose_nothing(worker: ProcessWorker) -> None:
    backend = worker_load.fake()
    load = Load(worker, [(batch, backend.run(batch)) for batch in batches(20)])
    for _ in range(KILLS):
        load.kill()
    load.close()
    assert load.answered == load.submitted
    assert load.wrong == 0
    assert load.lost >= KILLS, "it was under load"


PARENT = """
import os, signal, sys
from tandem.backends.fake import FakeBackend
from tandem.clock import SystemClock
from tandem.workers.process import ProcessWorker, WorkerSpec

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit another
worker = ProcessWorker(WorkerSpec(device_id="cpu", build=FakeBackend), SystemClock())
print(worker.pid, flush=True)
"""
ENDS = {
    "return": "sys.stdin.readline()",
    "error": "sys.stdin.readline(); 1 / 0",
    "exit": "sys.stdin.readline(); os._exit(3)",
    "kill": "sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)",
    "stopped child": "os.kill(worker.pid, signal.SIGSTOP); sys.stdin.readline()",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_no_child_outlives_its_parent(end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT + end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    _, errors = parent.communicate("\n", timeout=60)
    ended = select.poll()
    ended.register(child, select.POLLIN)
    assert ended.poll(30_000), errors
    os.close(child)
    assert ("ZeroDivisionError" in errors) == ("1 / 0" in end)
    assert "Fatal" not in errors


def test_ctrl_c_leaves_the_child_to_its_parent() -> None:
    program = PARENT + (
        "from queue import Queue; import numpy as np; from tandem.types import TokenBatch; done = Queue()\n"
        "try: print('ready', flush=True); signal.pause()\n"
        "except KeyboardInterrupt: pass\n"
        "worker.submit(TokenBatch(np.ones((1, 3), np.int32), np.array([3], np.int32)), done.put)\n"
        "print(done.get(timeout=30).error); worker.close()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child, number)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=60) == ("None\n", "")
    assert parent.returncode == 0
