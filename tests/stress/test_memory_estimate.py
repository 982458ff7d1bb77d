"""Predicted against measured peaks of every backend there is here, and the bound that is promised for them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tandem.bench.memory import PEAK_BACKENDS
from tandem.bench.memory_peaks import PeaksJob, peaks
from tandem.models.folder import ModelFolder
from tandem.types import Tier

pytestmark = pytest.mark.stress

BOUND = 0.10


@pytest.mark.parametrize(("backend", "tier"), PEAK_BACKENDS)
def test_a_fitted_estimate_is_within_a_tenth_of_every_peak(
    backend: str, tier: Tier, minilm_folder: ModelFolder
) -> None:
    if backend == "torch" and find_spec("torch") is None:
        pytest.skip("no torch")
    found = peaks(PeaksJob(str(minilm_folder.path), backend, tier, threads=2))
    if not found.predicted:
        pytest.skip("this system does not tell a process its peak")
    assert {(peak.rows, peak.width): peak.error for peak in found.predicted if abs(peak.error) > BOUND} == {}
