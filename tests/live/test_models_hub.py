"""The real ``huggingface_hub`` against a hub on the loopback interface, through the command as a user types it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.hub_server import HubServer, hub_server
from tests.model_folders import REVISION, files_below, write_model

pytestmark = pytest.mark.live

NAME = "acme/tiny"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write_model(tmp_path / "hub" / "acme" / "tiny")
    with hub_server(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user with a home of their own, whose variables do not reach in from outside."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "PROXY" not in name.upper()
    }
    return {**kept, "HF_HOME": str(tmp_path / "hf"), "TANDEM_HOME": str(tmp_path / "home"), "PIP_NO_INDEX": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tandem", "models", *words]


def run(environment: dict[str, str], url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**environment, "HF_ENDPOINT": url}
    return subprocess.run(command(*words), env=environment, capture_output=True, text=True, check=False)


def test_pull_list_show_and_the_cache_alone(hub: HubServer, environment: dict[str, str], tmp_path: Path) -> None:
    environment["HF_TOKEN"] = "hf_of_the_user"
    pulled = run(environment, hub.url, "pull", NAME)
    assert pulled.returncode == 0, pulled.stderr
    snapshot = tmp_path / "hf" / "hub" / "models--acme--tiny" / "snapshots" / REVISION
    assert files_below(snapshot) == files_below(tmp_path / "hub" / "acme" / "tiny") - {"README.md", "pytorch_model.bin"}
    assert "fetching acme/tiny at 0123456789ab: 6 files, 25.0 kB" in pulled.stderr
    assert "100%" in pulled.stderr
    assert hub.tokens == {"Bearer hf_of_the_user"}
    assert not [request for request in hub.requests if "acme/tiny" not in request], "nothing else is asked of a hub"

    hub.requests.clear()
    (listed,) = json.loads(run(environment, hub.url, "list", "--json").stdout)
    assert (listed["name"], listed["source"]) == (NAME, "hub")
    verified = run(environment, hub.url, "show", NAME, "--verify")
    assert "verified      whole, 6 files hashed" in verified.stdout
    removed = run(environment, hub.url, "rm", NAME)
    assert removed.returncode == 3
    assert "`hf cache rm model/acme/tiny`" in removed.stderr
    assert hub.requests == []

    blob = (snapshot / "tokenizer.json").resolve()
    blob.write_bytes(blob.read_bytes().replace(b"1.0", b"2.0"))
    damaged = run(environment, hub.url, "show", NAME, "--verify")
    assert damaged.returncode == 3
    assert "tokenizer.json is git-sha1:" in damaged.stderr


def test_offline_only_the_cache_counts(hub: HubServer, environment: dict[str, str]) -> None:
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    refused = run(offline, hub.url, "pull", NAME)
    assert refused.returncode == 3
    assert "HF_HUB_OFFLINE is set" in refused.stderr
    assert hub.requests == []
    assert run(environment, hub.url, "pull", NAME).returncode == 0
    hub.requests.clear()
    assert run(offline, hub.url, "pull", NAME).returncode == 0
    assert hub.requests == []


def test_an_unknown_model_is_told_from_a_hub_that_is_away(hub: HubServer, environment: dict[str, str]) -> None:
    unknown = run(environment, hub.url, "pull", "acme/none")
    assert unknown.returncode == 3
    assert "there is no acme/none, or it is private" in unknown.stderr
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = run(environment, f"http://127.0.0.1:{closed.getsockname()[1]}", "pull", NAME)
    assert away.returncode == 3
    assert "hub: can not be reached" in away.stderr


def test_a_hub_that_hangs_is_left_after_the_timeout(environment: dict[str, str]) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        hung = run(environment, f"http://127.0.0.1:{deaf.getsockname()[1]}", "pull", NAME, "--hub-timeout", "0.2")
    assert hung.returncode == 3
    assert "hub: can not be reached" in hung.stderr


def test_a_page_in_the_place_of_the_hub_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "hub" / "api" / "models").mkdir(parents=True)
    with hub_server(tmp_path / "hub") as portal:
        portal.page = b"<html>Please log in to this network</html>"
        answer = run(environment, portal.url, "pull", NAME)
    assert answer.returncode == 3
    assert "hub: can not be reached" in answer.stderr


def test_two_pulls_at_once_both_succeed(hub: HubServer, environment: dict[str, str], tmp_path: Path) -> None:
    environment["HF_ENDPOINT"] = hub.url
    pulls = [subprocess.Popen(command("pull", NAME), env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [pull.communicate()[1] for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0], errors
    assert run(environment, hub.url, "show", NAME, "--verify").returncode == 0


def test_a_pull_that_was_cut_off_leaves_no_model_and_the_next_one_goes_on(
    hub: HubServer, environment: dict[str, str]
) -> None:
    hub.refused = "model.safetensors"
    broken = run(environment, hub.url, "pull", NAME)
    assert broken.returncode == 3
    assert "model.safetensors of acme/tiny could not be fetched" in broken.stderr
    assert json.loads(run(environment, hub.url, "list", "--json").stdout) == []
    assert "tandem models pull acme/tiny" in run(environment, hub.url, "show", NAME).stderr
    hub.refused = None
    assert run(environment, hub.url, "pull", NAME).returncode == 0


def test_halves_that_killed_pulls_left_are_swept_unless_somebody_is_at_them(
    hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    run(environment, hub.url, "pull", NAME)
    cache = tmp_path / "hf" / "hub"
    locks = sorted((cache / ".locks" / "models--acme--tiny").iterdir())
    halves = [cache / "models--acme--tiny" / "blobs" / f"{lock.stem}.0badcafe.incomplete" for lock in locks]
    for half in halves:
        half.write_bytes(b"half")
    with locks[0].open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run(environment, hub.url, "pull", NAME).returncode == 0
    assert [half for half in halves if half.exists()] == halves[:1]
