"""How a process ends that uses the library: without ``close``, and by Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import write_word_model

pytestmark = pytest.mark.live

# A shell that runs the tests in the background has them ignore Ctrl-C, and their children inherit that.
BEGIN = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from tandem import Embedder
from tandem.config import Settings

settings = Settings(store_dir=sys.argv[2], backend="onnxruntime", warm=False, cache="off")
embedder = Embedder(sys.argv[1], settings=settings)
texts = [f"w{i % 40} " * 18 for i in range(200_000)]
"""
LEAVE_WHILE_BUSY = """
threading.Thread(target=embedder.embed, args=(texts,), daemon=True).start()
while not embedder.engine.backlog().queued_texts:
    pass
print("leaving")
"""
LEAVE_IDLE = """
embedder.embed("w1")
print("leaving")
"""
WAIT_FOR_ALL = """
with embedder:
    print("waiting", flush=True)
    embedder.embed(texts)
print("not interrupted")
"""
# Not in the process of the tests: a signal to it, after hundreds of tests with their loops and native threads, ended in
# a crash of the interpreter once.
COUNTED = """
import signal
from concurrent.futures import CancelledError, ThreadPoolExecutor
from tandem.backends.onnxruntime import OnnxRuntimeBackend

computed, begun, run = [], threading.Event(), OnnxRuntimeBackend.run

def counted(self, batch):
    computed.append(len(batch.lengths))
    begun.set()
    return run(self, batch)

OnnxRuntimeBackend.run = counted
"""
INTERRUPT_A_CALL = (
    COUNTED
    + """
def interrupt():
    begun.wait()
    # To the main thread itself: what waits for a lock is only woken by a signal of its own.
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

with embedder:
    threading.Thread(target=interrupt).start()
    try:
        embedder.embed(texts)
    except KeyboardInterrupt:
        print("interrupted")
    while embedder.engine.inflight:
        threading.Event().wait(0.001)
    assert embedder.embed("w1").shape == (embedder.dimensions,)
print("dropped" if sum(computed) < len(texts) / 2 else "computed")
"""
)
INTERRUPT_A_BLOCK = (
    COUNTED
    + """
with ThreadPoolExecutor(1) as threads:
    try:
        with embedder:
            call = threads.submit(embedder.embed, texts)
            begun.wait()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        print("interrupted")
    try:
        call.result(60)
    except CancelledError:
        print("dropped" if sum(computed) < len(texts) / 2 else "computed")
"""
)


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    model = write_word_model(folder / "tiny")
    command = [sys.executable, "-c", BEGIN + program, str(model), str(folder / "home" / "models")]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )


@pytest.mark.parametrize("program", [LEAVE_WHILE_BUSY, LEAVE_IDLE], ids=["busy", "idle"])
def test_a_process_that_does_not_close_ends_cleanly(program: str, tmp_path: Path) -> None:
    process = start(program, tmp_path)
    output, errors = process.communicate(timeout=60)
    assert output == "leaving\n", errors
    assert process.returncode == 0, errors
    assert "Fatal" not in errors


def test_ctrl_c_does_not_wait_for_a_long_list(tmp_path: Path) -> None:
    process = start(WAIT_FOR_ALL, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert output == ""
    assert "KeyboardInterrupt" in errors
    assert process.returncode in (-signal.SIGINT, 130), errors


@pytest.mark.parametrize("program", [INTERRUPT_A_CALL, INTERRUPT_A_BLOCK], ids=["call", "block"])
def test_what_is_interrupted_drops_what_waits(program: str, tmp_path: Path) -> None:
    process = start(program, tmp_path)
    output, errors = process.communicate(timeout=60)
    assert output == "interrupted\ndropped\n", errors
    assert process.returncode == 0, errors
