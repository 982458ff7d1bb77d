"""OpenVINO on the CPU: the fastest of the engines tried on x86 (docs/benchmarks.md).

Traps held here. (1) The precision hint is always set: left alone, this engine computes fp32 models in bf16 on CPUs that
have it. (2) A request is fed in one way only, by tensors over our own arrays: one that was fed by copying first and by
sharing later corrupted the heap (2026.4.1; seen as a crash in a later call). (3) Output memory belongs to the request
and is copied out before its next run. (4) Prepared kernels are kept for a bounded number of shapes, as they cost about
0.5 MB a shape.
"""

from __future__ import annotations

from threading import Lock, local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import BackendOptions, Graph, GraphModel
from tandem.backends.quiet_openvino import ov
from tandem.types import Output, Tier, TokenBatch

_PRECISION = {Tier.FP32: "f32", Tier.BF16: "bf16"}


class OpenVinoBackend:
    """Runs a graph in ``streams`` streams. The graph for token rows is compiled when it is first asked for."""

    name = "openvino"

    def __init__(self, model: GraphModel, options: BackendOptions) -> None:
        """Raises RuntimeError when the engine refuses the graph or the CPU."""
        self.tier = options.tier
        self.dims = model.dims
        self.hidden = model.hidden
        self.streams = options.streams
        self.packing = model.packing
        self._model = model
        self._core = ov.Core()
        self._config = {
            "INFERENCE_PRECISION_HINT": _PRECISION[options.tier],
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": options.streams,
            # Pinned threads lose their core to whatever else was pinned there, and this host is shared.
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": options.kernel_cache,
        }
        self._compiling = Lock()
        self._compiled: dict[int, Any] = {}
        self._compile(model.graphs[Output.POOLED])
        self._requests = local()

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        graph = self._model.graphs[batch.output]
        request = self._request(graph)
        # The arrays must outlive the run: a shared tensor does not hold them.
        arrays = graph.feeds(batch)
        for name, array in arrays.items():
            request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        request.infer()
        result: NDArray[np.float32] = np.array(request.get_tensor(graph.result).data, np.float32)
        return self._model.finish(result, batch)

    def close(self) -> None:
        self._compiled.clear()
        self._requests = local()

    def _request(self, graph: Graph) -> Any:
        """This thread's request for a graph."""
        requests = self._requests.__dict__.setdefault("by_graph", {})
        if id(graph) not in requests:
            requests[id(graph)] = self._compile(graph).create_infer_request()
        return requests[id(graph)]

    def _compile(self, graph: Graph) -> Any:
        with self._compiling:
            if id(graph) not in self._compiled:
                with graph.build() as path:
                    model = self._core.read_model(path)
                    self._compiled[id(graph)] = self._core.compile_model(model, "CPU", self._config)
            return self._compiled[id(graph)]
