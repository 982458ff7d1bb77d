"""Each example runs, as a user would run it, against a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tandem.build import build_engine
from tandem.config import Settings
from tandem.models.folder import ModelFolder
from tests.http.conftest import OPTIONS
from tests.http.loopback import Loopback, loopback

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLIENTS = ["openai_client.py", "langchain_client.py", "huggingface_client.py", "cohere_style.py"]

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server(minilm_folder: ModelFolder) -> Iterator[Loopback]:
    settings = Settings(model=str(minilm_folder.path), served_model_name=("all-MiniLM-L6-v2",), backend="fake")
    with loopback(build_engine(settings), OPTIONS) as made:
        yield made


@pytest.fixture
def run(server: Loopback) -> Callable[..., str]:
    """Runs a command with TANDEM_URL set and gives what it printed."""

    def run(*command: str | Path) -> str:
        env = {**os.environ, "TANDEM_URL": server.url}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client(run: Callable[..., str], name: str) -> None:
    assert run(sys.executable, EXAMPLES / name).strip()


def test_curl(run: Callable[..., str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    said = run(EXAMPLES / "curl.sh")
    assert said.count("== /") == 10
    assert '"embeddings":{"float":[[' in said


def test_every_example_of_a_client_is_run() -> None:
    there = {path.name for path in EXAMPLES.iterdir() if path.name.endswith(("_client.py", "_style.py"))}
    assert there == set(CLIENTS)
