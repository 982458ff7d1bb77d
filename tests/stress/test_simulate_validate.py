"""A short ``tandem simulate --validate``: that it runs to its end. Whether it agrees is for a quiet machine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tandem.cli.main import main
from tandem.models.folder import ModelFolder

pytestmark = [pytest.mark.stress, pytest.mark.live]


def test_the_server_and_its_simulation_are_compared(
    minilm_folder: ModelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--serve",
        str(minilm_folder.path),
        "--seconds",
        "3",
        "--load",
        "0.3",
        "--rounds",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert main(["simulate", "--validate", *words]) in (0, 1)
    assert "p50 within 10%, p95 within 15%" in capsys.readouterr().out
    rows = msgspec.json.decode((tmp_path / "validate.json").read_bytes())["rows"]
    assert [row["texts"] for row in rows] == ["questions", "mix"]
    assert all(each["measured"]["p50_s"] > 0 for row in rows for each in row["rounds"])
