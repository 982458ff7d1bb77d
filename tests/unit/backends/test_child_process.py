from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tandem
from tandem.backends.child_process import environment, how_it_ended


def test_a_child_has_our_package_first_and_what_else_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    assert environment()["PYTHONPATH"].split(os.pathsep) == [str(Path(tandem.__file__).parents[1]), "/some/where"]
    monkeypatch.delenv("PYTHONPATH")
    found = environment({"A": "b"})
    assert (found["PYTHONPATH"], found["A"]) == (str(Path(tandem.__file__).parents[1]), "b")


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "ended with exit code 0"),
        (7, "ended with exit code 7"),
        (-9, "was ended by SIGKILL"),
        (-(signal.SIGRTMIN + 3), "was ended by signal 37"),
    ],
)
def test_an_end_in_words(returncode: int, words: str) -> None:
    assert how_it_ended(returncode) == words


def test_a_crash_leaves_no_core(tmp_path: Path) -> None:
    program = (
        "import os, resource; from tandem.backends.child_process import leave_no_core; leave_no_core();"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0); os.abort()"
    )
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True)
    assert child.returncode == -signal.SIGABRT, child.stderr
    assert list(tmp_path.iterdir()) == []
