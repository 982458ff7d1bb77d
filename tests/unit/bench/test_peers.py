"""The peer protocol, with a peer of three lines that needs no package but numpy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tandem.bench.peers import LibraryPeer, PeerProcess, available, infinity_server, python
from tandem.errors import JobError
from tests.conftest import REPOSITORY

SCRIPT = """
import sys
sys.path.insert(0, {protocol!r})
import numpy as np
from protocol import serve
def load(job):
    print("chatter on stdout")
    if job["model"] == "/broken":
        raise ValueError("no weights")
    return (lambda texts: np.array([[len(t), job["threads"]] for t in texts], np.float64)), {{"dtype": "fp64"}}
serve(load, ("numpy",))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "peer.py").write_text(SCRIPT.format(protocol=str(REPOSITORY / "bench" / "peers")))
    interpreter = python(tmp_path, "toy")
    interpreter.parent.mkdir(parents=True)
    # A script and not a link: an interpreter finds its packages by where it lies.
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o755)
    return tmp_path


PEER = LibraryPeer("toy", "toy", "peer.py", 8, {})


def test_a_peer_embeds_in_its_own_process(folder: Path) -> None:
    with PeerProcess(PEER, folder, Path("/model"), threads=3) as peer:
        assert peer.setup.versions == {"numpy": np.__version__}
        assert peer.setup.settings == {"dtype": "fp64"}
        rows = peer.rows(["a", "bcd"], folder)
        assert rows.dtype == np.float32
        assert rows.tolist() == [[1, 3], [3, 3]]
        first, again = (peer.embed(folder / "texts.json") for _ in range(2))
        assert first.checksum == again.checksum
        assert first.rows == 2
        assert len(first.seconds) == 1


def test_a_peer_that_fails_says_why(folder: Path) -> None:
    broken = PeerProcess(PEER, folder, Path("/broken"), threads=1)
    with pytest.raises(JobError, match="no weights"), broken:
        pass


def test_a_peer_that_dies_is_an_error_with_its_last_words(folder: Path) -> None:
    (folder / "peer.py").write_text("raise SystemExit('out of luck')")
    with pytest.raises(JobError, match="out of luck"), PeerProcess(PEER, folder, Path("/model"), 1):
        pass


def test_a_peer_counts_as_set_up_when_its_mark_is_there(tmp_path: Path) -> None:
    assert not available(tmp_path, "toy")
    (tmp_path / ".envs" / "toy").mkdir(parents=True)
    (tmp_path / ".envs" / "toy" / "ready").touch()
    assert available(tmp_path, "toy")


def test_infinity_gets_equal_threads_and_no_network() -> None:
    spec = infinity_server(Path("peers"), Path("/model"), threads=2)
    assert spec.environment["OMP_NUM_THREADS"] == "2"
    assert spec.environment["HF_HUB_OFFLINE"] == "1"
    assert spec.command[spec.command.index("--host") + 1] == "127.0.0.1"
