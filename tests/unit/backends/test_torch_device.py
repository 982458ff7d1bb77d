"""Why a device can not be used, in words: what the machine says is handed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.backends import torch_device
from tandem.backends.base import BackendOptions
from tandem.backends.torch_device import CudaDevice, Sources, TorchFacts, list_devices, require_device, require_room
from tandem.errors import BackendFailed, ConfigError
from tandem.types import Tier

GIB = 2**30
H200 = CudaDevice(
    index=0, name="NVIDIA H200", capability=(9, 0), total_bytes=139 * GIB, free_bytes=100 * GIB, driver="580.95.05"
)
T4 = CudaDevice(index=1, name="Tesla T4", capability=(7, 5), total_bytes=15 * GIB, free_bytes=14 * GIB)
WORKING = TorchFacts(version="2.13.0+cu130", cuda="13.0", devices=2)
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


def machine(facts: TorchFacts = WORKING, device: Callable[[int], CudaDevice] | None = None) -> Sources:
    return Sources(lambda: facts, device or (lambda index: (H200, T4)[index]))


def changed(**fields: Any) -> Sources:
    return machine(msgspec.structs.replace(WORKING, **fields))


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        (machine(TorchFacts()), "tandem-embed[gpu]"),
        (changed(version="2.9.1+cu128"), "2.9.1+cu128 is too old, the torch backend needs 2.10"),
        (changed(cuda=""), "built without CUDA"),
        (changed(trouble=NO_DRIVER, devices=0), "no NVIDIA driver with a GPU"),
        (changed(trouble="No CUDA GPUs are available"), "no NVIDIA driver with a GPU"),
        (changed(trouble=OLD_DRIVER), "driver is too old for PyTorch 2.13.0+cu130 (CUDA 13.0)"),
        (changed(trouble="CUDA unknown error"), "CUDA can not be started: CUDA unknown error"),
    ],
)
def test_what_is_missing_is_named(sources: Sources, says: str) -> None:
    with pytest.raises(BackendFailed) as caught:
        require_device("cuda:0", sources)
    assert says in str(caught.value)
    with pytest.raises(BackendFailed):
        list_devices(sources)


def test_a_device_that_does_not_answer_is_named() -> None:
    def gone(index: int) -> CudaDevice:
        raise RuntimeError("CUDA error: device\nis lost")

    with pytest.raises(BackendFailed, match="cuda:1 does not answer: CUDA error: device is lost"):
        require_device("cuda:1", machine(device=gone))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "CUDA:0", "", "cuda:0,1", "mps"])
def test_a_name_that_no_device_has(name: str) -> None:
    with pytest.raises(ConfigError, match="none that PyTorch serves here"):
        require_device(name, machine())


def test_an_index_out_of_range_names_the_devices_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no device cuda:7; .*: cuda:0, cuda:1"):
        require_device("cuda:7", machine())


def test_devices_are_found() -> None:
    assert require_device("cuda", machine()) == H200
    assert require_device("cuda:1", machine()) == T4
    assert list_devices(machine()) == [H200, T4]
    assert [device.device for device in list_devices(machine())] == ["cuda:0", "cuda:1"]


def test_the_cpu_needs_pytorch_and_no_cuda() -> None:
    assert require_device("cpu", changed(cuda="", devices=0)) is None
    with pytest.raises(BackendFailed, match=r"tandem-embed\[gpu\]"):
        require_device("cpu", machine(TorchFacts()))


@pytest.mark.parametrize(
    ("needed", "allowed", "says"),
    [
        (20, 125, ""),
        (90, 80, r"a memory limit of 80\.00 GiB on cuda:0 \(NVIDIA H200\) is too small: the model needs 90\.00 GiB"),
        (110, 125, r"cuda:0 .* is full: the model needs 110\.00 GiB .*, 100\.00 GiB of 139\.00 GiB are free"),
        (140, 139, r"cuda:0 .* is too small: the model needs 140\.00 GiB .*, it has 139\.00 GiB in all"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_sizes(needed: int, allowed: int, says: str) -> None:
    options = BackendOptions(memory_fraction=1.0, memory_bytes=allowed * GIB)
    if not says:
        require_room(needed * GIB, H200, options)
        return
    with pytest.raises(BackendFailed, match=says):
        require_room(needed * GIB, H200, options)


def test_float16_stands_in_where_bfloat16_is_missing() -> None:
    assert torch_device.dtype_name(Tier.BF16, H200) == "bfloat16"
    assert torch_device.dtype_name(Tier.BF16, T4) == "float16"
    assert torch_device.dtype_name(Tier.FP32, T4) == "float32"


def test_the_drivers_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (me@there)\n")
    assert torch_device._driver(file) == "580.95.05"
    assert torch_device._driver(tmp_path / "none") == ""


def test_as_a_child_it_prints_the_list_or_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    assert torch_device.main(machine()) == 0
    assert msgspec.json.decode(capfd.readouterr().out, type=list[CudaDevice]) == [H200, T4]
    assert torch_device.main(machine(TorchFacts())) == 1
    assert "tandem-embed[gpu]" in capfd.readouterr().err


def test_this_machine_answers_in_one_way_or_the_other(capfd: pytest.CaptureFixture[str]) -> None:
    """The real sources, whatever there is here."""
    failed = torch_device.main()
    said = capfd.readouterr()
    assert said.err if failed else msgspec.json.decode(said.out, type=list[CudaDevice])
