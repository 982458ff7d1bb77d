"""ONNX Runtime on the CPU: the fallback, and the engine for CPUs that OpenVINO does not know. fp32 only.

Never its dynamic int8: those vectors depend on the company they keep (DESIGN 2). Its threads do not spin, as they would
burn the cores that the server and the tokenizer need.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import BackendOptions, Graph, GraphModel
from tandem.backends.quiet_onnxruntime import ort
from tandem.types import Output, Tier, TokenBatch

# The engine's errors have no base of their own.
_ERRORS: tuple[type[Exception], ...] = tuple(
    found
    for found in vars(ort.capi.onnxruntime_pybind11_state).values()
    if isinstance(found, type) and issubclass(found, Exception)
)


class OnnxRuntimeBackend:
    """Runs a graph; ``options.streams`` calls share one session, each with its part of the threads."""

    name = "onnxruntime"
    tier = Tier.FP32

    def __init__(self, model: GraphModel, options: BackendOptions) -> None:
        """Raises RuntimeError when the engine refuses the graph."""
        self.dims = model.dims
        self.hidden = model.hidden
        self.streams = options.streams
        self.packing = model.packing
        self._model = model
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = max(1, options.threads // options.streams)
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._compiling = Lock()
        self._sessions: dict[int, Any] = {}
        self._session(model.graphs[Output.POOLED])

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        graph = self._model.graphs[batch.output]
        found = self._session(graph).run([graph.result], graph.feeds(batch))
        return self._model.finish(np.asarray(found[0], np.float32), batch)

    def _load(self, path: str) -> Any:
        try:
            return ort.InferenceSession(path, self._options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise RuntimeError(str(error)) from error

    def close(self) -> None:
        self._sessions.clear()

    def _session(self, graph: Graph) -> Any:
        with self._compiling:
            if id(graph) not in self._sessions:
                with graph.build() as path:
                    self._sessions[id(graph)] = self._load(str(path))
            return self._sessions[id(graph)]
