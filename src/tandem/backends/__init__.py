"""Backends by name. Each runs a graph, but for ``fake``, which needs no model."""

from __future__ import annotations

from collections.abc import Callable

from tandem.backends.base import Backend, BackendOptions, GraphModel
from tandem.registry import Registry

BACKENDS: Registry[Callable[[GraphModel, BackendOptions], Backend]] = Registry("backend")
BACKENDS.register("openvino", "tandem.backends.openvino:OpenVinoBackend")
BACKENDS.register("onnxruntime", "tandem.backends.onnxruntime:OnnxRuntimeBackend")
BACKENDS.register("torch", "tandem.backends.torch_backend:TorchBackend")

__all__ = ["BACKENDS", "Backend", "BackendOptions", "GraphModel"]
