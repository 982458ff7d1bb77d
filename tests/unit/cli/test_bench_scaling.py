from __future__ import annotations

import json
from pathlib import Path

import pytest

from tandem.bench.scaling import devices_here
from tandem.cli.main import main


def test_simulated_devices_stand_beside_the_documents_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--simulated-only", "--requests", "400", "--profile", "cpu", "--out", str(tmp_path)]
    assert main(["bench", "scaling", *words]) == 0
    shown = capsys.readouterr().out
    for text in ("3,800 req/s, 3.17x, 72% busy", "4 x cpu, mix, simulated: speed-up", "Measured by tandem profile"):
        assert text in shown
    assert {"cpu, questions", "cpu, mix"} <= set(json.loads((tmp_path / "scaling.json").read_text())["details"])


def test_the_cpu_is_measured_as_one_and_as_two_workers() -> None:
    assert devices_here()[:2] == [("cpu", 1), ("cpu*2", 2)]
