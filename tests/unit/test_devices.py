from __future__ import annotations

from pathlib import Path

import pytest

from tandem.devices import DevicePlan, plan_devices, visible_gpus
from tandem.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "gpus", "ids"),
    [
        ("auto", (), ["cpu"]),
        ("auto", (0, 1), ["cpu", "cuda:0", "cuda:1"]),
        ("cpu", (0,), ["cpu"]),
        ("cuda", (0, 1), ["cuda:0", "cuda:1"]),
        ("cuda:1", (), ["cuda:1"]),
        ("cuda", (), ["cuda:0"]),
        ("cpu+cuda", (), ["cpu", "cuda:0"]),
        ("cuda:0,2", (0, 1, 2), ["cuda:0", "cuda:2"]),
        ("cpu+cuda:0", (0,), ["cpu", "cuda:0"]),
        (" cpu + cuda ", (0,), ["cpu", "cuda:0"]),
        ("cpu*2", (), ["cpu#1", "cpu#2"]),
        ("cuda:0*2+cpu", (0,), ["cuda:0#1", "cuda:0#2", "cpu"]),
    ],
)
def test_names_become_workers(text: str, gpus: tuple[int, ...], ids: list[str]) -> None:
    plans = plan_devices(text, gpus)
    assert [plan.id for plan in plans] == ids
    assert [plan.device for plan in plans] == [name.split("#")[0] for name in ids]


def test_workers_that_share_a_device_know_of_it() -> None:
    assert plan_devices("cpu*3", ())[1] == DevicePlan("cpu#2", "cpu", 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpu", "'gpu' is no device; give auto, or names joined by"),
        ("cuda:", "'cuda:' is no device"),
        ("cpu+", "'' is no device"),
        ("", "'' is no device"),
        ("cpu*0", r"'cpu\*0' is no device"),
        ("cpu+cpu", "names cpu twice; for two workers on it write"),
        ("cuda+cuda:0", "names cuda:0 twice"),
        ("cuda:0,0", "names cuda:0 twice"),
        ("auto+cpu", "'auto' is no device"),
    ],
)
def test_what_is_no_device_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_devices(text, (0,))


def test_gpus_are_counted_by_their_device_files(tmp_path: Path) -> None:
    assert visible_gpus(tmp_path, {}) == ()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path, {}) == (0, 1, 2)
    assert visible_gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": "2,0"}) == (0, 1)
    assert visible_gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    assert visible_gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": "1,-1,0"}) == (0,)
