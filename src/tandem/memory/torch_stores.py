"""Memory that PyTorch has: on a device, and pinned on the host. PyTorch is imported when a store is made.

Regions come from PyTorch and not from the driver, so that its figures count them and its tensors can lie in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tandem.errors import ConfigError
from tandem.memory.base import Region, StoreOptions
from tandem.memory.stores import CACHE_LINE, refused

if TYPE_CHECKING:
    import torch

# What cudaMalloc aligns to at least, and a multiple of the widest load and of the sectors that a copy moves.
DEVICE_ALIGNMENT = 512


class TensorRegion:
    """A uint8 tensor; ``buffer`` is the tensor itself on a device, a memoryview of it on the host."""

    def __init__(self, tensor: torch.Tensor, *, on_host: bool) -> None:
        self.tensor = tensor
        self.nbytes = tensor.numel()
        self.address = tensor.data_ptr()
        self.buffer: Any = tensor.numpy().data if on_host else tensor


class PinnedStore:
    """Host memory that a device copies from and to by itself, while the host goes on."""

    name = "pinned"
    alignment = CACHE_LINE
    on_host = True

    def __init__(self, options: StoreOptions) -> None:
        """Raises ConfigError where there is no CUDA device."""
        self._torch = _cuda(self.name, options.device)

    def allocate(self, nbytes: int) -> TensorRegion:
        torch = self._torch
        try:
            return TensorRegion(torch.empty(nbytes, dtype=torch.uint8, pin_memory=True), on_host=True)
        except RuntimeError as error:
            raise refused(self.name, nbytes, error) from error

    def free(self, region: Region) -> None:
        """Nothing to do: the memory goes with the last that views it."""


class DeviceStore:
    """Memory of one device. ``cpu`` is a device too: what tests run this on."""

    on_host = False

    def __init__(self, options: StoreOptions) -> None:
        """Raises ConfigError where the device is not there."""
        self.name = "device"
        self.device = options.device
        self.alignment = CACHE_LINE if self.device == "cpu" else DEVICE_ALIGNMENT
        self._torch = _torch(self.name) if self.device == "cpu" else _cuda(self.name, self.device)

    def allocate(self, nbytes: int) -> TensorRegion:
        torch = self._torch
        try:
            return TensorRegion(torch.empty(nbytes, dtype=torch.uint8, device=self.device), on_host=False)
        except RuntimeError as error:
            raise refused(f"{self.device} {self.name}", nbytes, error) from error

    def free(self, region: Region) -> None:
        """Nothing to do for the tensor, which goes with the last that views it; but PyTorch would keep the memory."""
        if self.device != "cpu":
            self._torch.cuda.empty_cache()


def _torch(store: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ConfigError(f"{store} memory needs PyTorch: pip install 'tandem-embed[gpu]'") from error
    return torch


def _cuda(store: str, device: str) -> Any:
    torch = _torch(store)
    if not torch.cuda.is_available():
        raise ConfigError(f"{store} memory needs a CUDA device, and PyTorch {torch.__version__} finds none here")
    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        raise ConfigError(f"there is no {device}: PyTorch finds {torch.cuda.device_count()} CUDA devices")
    return torch
