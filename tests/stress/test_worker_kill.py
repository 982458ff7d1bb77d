"""Twenty kills of a worker under load, with a real model: nothing lost, nothing wrong, and how long each gap was."""

from __future__ import annotations

import os
import sys
from functools import partial

import pytest

from tandem.clock import SystemClock
from tandem.models.folder import ModelFolder
from tandem.workers.ledger import RestartOptions
from tandem.workers.process import ProcessWorker, WorkerSpec
from tests import worker_load
from tests.conftest import REPOSITORY
from tests.worker_load import Load, batches

pytestmark = pytest.mark.stress

KILLS = 20


def test_twenty_kills_under_load(minilm_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    backend = worker_load.real(minilm_folder.path)
    cases = [(batch, backend.run(batch)) for batch in batches(40)]
    backend.close()
    build = partial(worker_load.real, minilm_folder.path)
    # Kills follow each other faster than a process earns a restart at once.
    restarts = RestartOptions(good_s=0.0)
    worker = ProcessWorker(WorkerSpec(device_id="cpu", build=build, restarts=restarts), SystemClock())
    load = Load(worker, cases)
    gaps_s = sorted(load.kill() for _ in range(KILLS))
    load.close()
    worker.close()
    print(
        f"{KILLS} kills, {load.submitted} batches, {load.lost} run again; from a kill to the next answer: "
        f"median {gaps_s[KILLS // 2]:.2f} s, longest {gaps_s[-1]:.2f} s",
        file=sys.stderr,
    )
    assert load.answered == load.submitted
    assert load.wrong == 0
    assert load.lost >= KILLS, "it was under load"
