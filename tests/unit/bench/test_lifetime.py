from __future__ import annotations

import pytest

from tandem.bench.lifetime import growth


def test_growth_looks_at_the_last_half_alone() -> None:
    assert growth([10, 50, 100, 100, 100, 100, 100, 100, 100, 100]) == pytest.approx(0.0)
    assert growth([100] * 10 + [100, 100, 102, 104, 106, 108, 110, 110, 110, 110]) == pytest.approx(0.1)


def test_one_high_sample_is_no_growth() -> None:
    steady = [200] * 100
    steady[-3] = 900
    assert growth(steady) == pytest.approx(0.0)
