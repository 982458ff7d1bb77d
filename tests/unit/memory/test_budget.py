from __future__ import annotations

import re

import pytest

from tandem.errors import ConfigError
from tandem.memory.budget import Allowance, DeviceMemory, pool_budget

GIB = 2**30
DEVICE = DeviceMemory("cuda:0", free_bytes=20 * GIB, total_bytes=24 * GIB)


def test_the_pool_gets_what_the_model_leaves() -> None:
    assert pool_budget(DEVICE, Allowance(fraction=0.5), 2 * GIB) == 10 * GIB
    assert pool_budget(DEVICE, Allowance(fraction=0.5, limit_bytes=5 * GIB), 2 * GIB) == 3 * GIB
    assert pool_budget(DEVICE, Allowance(fraction=0.1, limit_bytes=5 * GIB), 2 * GIB) == int(0.4 * GIB)


def test_what_others_hold_is_not_counted_on() -> None:
    assert pool_budget(DEVICE, Allowance(fraction=1.0), 2 * GIB) == 18 * GIB


@pytest.mark.parametrize(
    ("allowance", "model", "words"),
    [
        (Allowance(fraction=0.1), 3 * GIB, [r"0\.1 of cuda:0 is 2\.40 GiB", r"3\.00 GiB", r"0\.15 would do"]),
        (Allowance(limit_bytes=GIB), 3 * GIB, [r"limit of 1\.00 GiB", r"needs 3\.00 GiB", r"512\.0 MiB"]),
        (Allowance(), 21 * GIB, [r"cuda:0 is full", r"20\.00 GiB of 24\.00 GiB are free"]),
        (Allowance(), 30 * GIB, [r"cuda:0 is too small", r"24\.00 GiB in all"]),
        (Allowance(fraction=0.0), GIB, [r"over 0"]),
        (Allowance(fraction=1.5), GIB, [r"at most 1, not 1\.5"]),
    ],
)
def test_what_can_not_hold_the_model_is_refused_with_what_would_do(
    allowance: Allowance, model: int, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        pool_budget(DEVICE, allowance, model, GIB // 2)
    for word in words:
        assert re.search(word, str(caught.value))
