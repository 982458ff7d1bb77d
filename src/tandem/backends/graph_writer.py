"""ONNX primitives: a writer that names, stores and connects, and knows nothing about encoders.

Weights go into the model itself, or, past what one protobuf message can hold, into a data file beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Attributes: TypeAlias = Mapping[str, int | float | str | Sequence[int]]

# LayerNormalization came with 17, Gelu with 20. Later sets add nothing that the blocks use.
OPSET = 20
# Smaller tensors stay in the model: shapes and axes must be there for engines to fold them.
_INLINE_BYTES = 4096
# Engines map the data file; a page boundary lets them use a tensor where it lies.
_ALIGN_BYTES = 4096


class GraphWriter:
    """Collects nodes and tensors in order. Values are known by name; ``op`` returns the name of its result.

    Everything is written straight into one message: onnx.helper would copy all weights twice more on the way.
    """

    def __init__(self, data: BinaryIO | None = None, data_name: str = "") -> None:
        """``data``: a file that takes the large tensors; it will be found as ``data_name`` beside the model."""
        opsets = [helper.make_opsetid("", OPSET)]
        self._model = onnx.ModelProto(
            ir_version=helper.find_min_ir_version_for(opsets), producer_name="tandem", opset_import=opsets
        )
        self._graph = self._model.graph
        self._graph.name = "encoder"
        self._constants: dict[bytes, str] = {}
        self._data = data
        self._data_name = data_name
        self.scope = ""

    def op(self, kind: str, *inputs: str, attributes: Attributes | None = None) -> str:
        """Add a node with one result."""
        return self.split(kind, *inputs, results=1, attributes=attributes)[0]

    def split(self, kind: str, *inputs: str, results: int, attributes: Attributes | None = None) -> list[str]:
        """Add a node with several results."""
        name = f"{self.scope}/{kind}_{len(self._graph.node)}"
        outputs = [f"{name}:{index}" for index in range(results)]
        node = self._graph.node.add(op_type=kind, name=name, input=inputs, output=outputs)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in (attributes or {}).items())
        return outputs

    def ints(self, *values: int) -> str:
        """An int64 vector, as shapes, axes and indices are."""
        return self.constant(np.array(values, np.int64))

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """A small unnamed tensor; equal ones are stored once."""
        array = np.asarray(value)
        key = f"{array.dtype.str}{array.shape}".encode() + array.tobytes()
        if key not in self._constants:
            self._constants[key] = self.tensor(f"constant_{len(self._constants)}", array)
        return self._constants[key]

    def tensor(self, name: str, value: NDArray[Any]) -> str:
        """A named tensor, written out at once: the writer keeps no array."""
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        proto = self._graph.initializer.add(name=name, dims=value.shape, data_type=kind)
        if self._data is None or value.nbytes < _INLINE_BYTES:
            proto.raw_data = value.tobytes()
        else:
            self._store(proto, self._data, np.ascontiguousarray(value))
        return name

    def _store(self, proto: TensorProto, data: BinaryIO, value: NDArray[Any]) -> None:
        data.seek(-data.tell() % _ALIGN_BYTES, 1)
        proto.data_location = TensorProto.EXTERNAL
        entries = {"location": self._data_name, "offset": data.tell(), "length": value.nbytes}
        for key, entry in entries.items():
            proto.external_data.add(key=key, value=str(entry))
        data.write(value.data)

    def result(self, value: str, name: str) -> str:
        """Let ``value`` be known to the outside as ``name``."""
        self._graph.node.add(op_type="Identity", name=name, input=[value], output=[name])
        return name

    def model(self, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> onnx.ModelProto:
        """The finished model; ``output`` bears the name of the value that it shows."""
        self._graph.input.extend(inputs)
        self._graph.output.append(output)
        return self._model


def data_file_of(path: Path) -> Path:
    """Where the weights of the model at ``path`` lie."""
    return path.with_name(path.name + ".data")
