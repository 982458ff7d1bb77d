"""CUDA devices through PyTorch: what is there, and why one can not be used. PyTorch itself is imported when asked for.

What the machine says comes through ``Sources``, so that every refusal is tested where there is no GPU. Looking at a
device makes a context on it, which takes some hundred megabytes of its memory and forbids forking: a process that
only wants to know runs this module as a child, which prints the list as JSON.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from tandem.backends.base import BackendOptions
from tandem.errors import BackendFailed, ConfigError, TandemError
from tandem.memory.budget import Allowance, DeviceMemory, pool_budget
from tandem.types import Tier

OLDEST = (2, 10)
EXTRA = "pip install 'tandem-embed[gpu]'"
BF16_CAPABILITY = (8, 0)
"""Ampere: the first generation that computes bfloat16 natively, and that FlashAttention runs on."""

_NAME = re.compile(r"cuda(?::(\d{1,4}))?", re.ASCII)
_DRIVER = Path("/proc/driver/nvidia/version")


class CudaDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; ``free_bytes`` at the moment of asking. ``driver``: its version, empty where the system hides it."""

    index: int
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: str = ""

    @property
    def device(self) -> str:
        """As the setting names it."""
        return f"cuda:{self.index}"

    @property
    def bf16(self) -> bool:
        """Whether bfloat16 is native; without it the bf16 tier is kept by float16, which is more exact."""
        return self.capability >= BF16_CAPABILITY


class TorchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of PyTorch. ``version`` empty: it is not installed. ``cuda``: the CUDA it was built for, or empty.
    ``trouble``: what CUDA said when it was started, empty when it did start."""

    version: str = ""
    cuda: str = ""
    trouble: str = ""
    devices: int = 0


class Sources(msgspec.Struct, frozen=True):
    """Where the facts come from: PyTorch, or a test's functions."""

    facts: Callable[[], TorchFacts]
    device: Callable[[int], CudaDevice]


def read_facts() -> TorchFacts:
    """Import PyTorch and start CUDA, if there is either."""
    try:
        import torch
    except ImportError:
        return TorchFacts()
    facts = TorchFacts(version=str(torch.__version__), cuda=torch.version.cuda or "")
    if not facts.cuda:
        return facts
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return msgspec.structs.replace(facts, trouble=" ".join(str(error).split()))
    return msgspec.structs.replace(facts, devices=torch.cuda.device_count())


def read_device(index: int) -> CudaDevice:
    """Raises RuntimeError when the device does not answer."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    free_bytes, total_bytes = torch.cuda.mem_get_info(index)
    return CudaDevice(
        index=index,
        name=properties.name,
        capability=(properties.major, properties.minor),
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        driver=_driver(),
    )


SYSTEM = Sources(read_facts, read_device)


def list_devices(sources: Sources = SYSTEM) -> list[CudaDevice]:
    """Every CUDA device of this process. Raises BackendFailed with the reason when CUDA can not be used at all."""
    facts = _usable(sources, cuda=True)
    return [_look_at(index, sources) for index in range(facts.devices)]


def require_device(name: str, sources: Sources = SYSTEM) -> CudaDevice | None:
    """The device called ``name``, None for ``cpu``.

    Raises ConfigError for a name that no device has, BackendFailed when PyTorch or CUDA is not fit for use.
    """
    match = _NAME.fullmatch(name)
    if name != "cpu" and match is None:
        raise ConfigError(f"device {name!r} is none that PyTorch serves here: cpu, or cuda:0, cuda:1, ...")
    facts = _usable(sources, cuda=match is not None)
    if match is None:
        return None
    index = int(match[1] or 0)
    if index >= facts.devices:
        there = ", ".join(f"cuda:{i}" for i in range(facts.devices)) or "none"
        raise ConfigError(f"there is no device {name}; CUDA devices of this machine: {there}")
    return _look_at(index, sources)


def cap_memory(device: str, fraction: float, limit_bytes: int) -> None:
    """Hold PyTorch's own allocator to a share of the device's memory. It is the whole process' limit, so this is for a
    process that is ours. Does nothing where CUDA can not be used: starting the backend says why."""
    facts = SYSTEM.facts()
    match = _NAME.fullmatch(device)
    if match is None or int(match[1] or 0) >= facts.devices:
        return
    import torch

    index = int(match[1] or 0)
    total_bytes = torch.cuda.get_device_properties(index).total_memory
    share = min(fraction, limit_bytes / total_bytes) if limit_bytes else fraction
    torch.cuda.set_per_process_memory_fraction(share, index)


def require_room(needed_bytes: int, device: CudaDevice, options: BackendOptions) -> None:
    """Refuse a model that its share of the device's memory, or what others leave of it, can not hold.

    ``needed_bytes``: weights, buffers and one batch. Raises BackendFailed with what is needed and what is there.
    """
    allowance = Allowance(fraction=options.memory_fraction, limit_bytes=options.memory_bytes or None)
    memory = DeviceMemory(f"{device.device} ({device.name})", device.free_bytes, device.total_bytes)
    try:
        pool_budget(memory, allowance, needed_bytes)
    except ConfigError as error:
        raise BackendFailed(str(error)) from error


def dtype_name(tier: Tier, device: CudaDevice | None) -> str:
    """PyTorch's name of the type that a tier is computed in. float16 stands in for bfloat16 where the GPU lacks it: it
    has three more bits, so it keeps the tier's promise; what overflows its range is found as not finite."""
    if tier is Tier.FP32:
        return "float32"
    return "bfloat16" if device is None or device.bf16 else "float16"


def _usable(sources: Sources, *, cuda: bool) -> TorchFacts:
    facts = sources.facts()
    if not facts.version:
        raise BackendFailed(f"PyTorch is not installed, and the torch backend needs it: {EXTRA}")
    if _version(facts.version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BackendFailed(f"PyTorch {facts.version} is too old, the torch backend needs {oldest}: {EXTRA}")
    if cuda and not facts.cuda:
        raise BackendFailed(
            f"PyTorch {facts.version} was built without CUDA: install one that is built for it, or use --device cpu"
        )
    if cuda and facts.trouble:
        raise BackendFailed(_cuda_trouble(facts))
    return facts


def _cuda_trouble(facts: TorchFacts) -> str:
    said = facts.trouble.lower()
    if "too old" in said:
        return f"the NVIDIA driver is too old for PyTorch {facts.version} (CUDA {facts.cuda}): {facts.trouble}"
    if "no nvidia driver" in said or "no cuda-capable device" in said or "no cuda gpus" in said:
        return f"no NVIDIA driver with a GPU is to be found here; use --device cpu. PyTorch says: {facts.trouble}"
    return f"CUDA can not be started: {facts.trouble}"


def _look_at(index: int, sources: Sources) -> CudaDevice:
    try:
        return sources.device(index)
    except RuntimeError as error:
        raise BackendFailed(f"cuda:{index} does not answer: {' '.join(str(error).split())}") from error


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _driver(path: Path = _DRIVER) -> str:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    match = re.search(r"Module.*?\s(\d+\.\d[\d.]*)\s", text)
    return match[1] if match else ""


def main(sources: Sources = SYSTEM) -> int:
    """For a child process: the devices as JSON on standard output, or the reason why there are none on standard error
    and 1."""
    try:
        found = msgspec.json.encode(list_devices(sources))
    except TandemError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(found.decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
