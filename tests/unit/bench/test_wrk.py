from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tandem.bench.load import LoadJob
from tandem.bench.wrk import closed_loop, installed
from tandem.errors import ConfigError


def test_wrk_too_stays_on_this_machine(tmp_path: Path) -> None:
    job = LoadJob(host="192.0.2.1", port=80, path="/", bodies=str(tmp_path / "b"), connections=1, seconds=1)
    with pytest.raises(ConfigError, match="loopback"):
        closed_loop(job, tmp_path)


def test_without_wrk_our_own_generator_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not installed()
