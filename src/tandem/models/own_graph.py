"""A repository's own ONNX or OpenVINO graph: the way to serve a model whose architecture Tandem does not build.

Only what the graph says of itself is read: the names and types of its inputs and results. No code of the model runs.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.files import GRAPHS
from tandem.models.folder import ModelFolder

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# Token states first: with them, pooling is Tandem's own and every output can be served.
_RESULTS = ("last_hidden_state", "token_embeddings", "sentence_embedding")
_WIDE = ("tensor(int64)", "i64")


class OwnGraph(msgspec.Struct, frozen=True, kw_only=True):
    """``result``: token states [n, s, hidden], or rows [n, hidden] where ``pooled``. ``wide``: inputs are int64."""

    path: Path
    inputs: tuple[str, ...]
    wide: bool
    result: str
    pooled: bool
    hidden: int


class _Port(msgspec.Struct, frozen=True):
    name: str
    kind: str
    shape: tuple[int, ...]


def find_own_graph(folder: ModelFolder) -> OwnGraph | None:
    """The folder's own graph, the best of those it has; None where it has none.

    Raises ModelBroken for a file that can not be parsed, ModelUnsupported for inputs or results that Tandem can not
    feed or pool, naming them.
    """
    path = next((found for name in GRAPHS if (found := folder.file(name))), None)
    if path is None:
        return None
    inputs, results = _read_xml(path) if path.suffix == ".xml" else _read_onnx(path)
    unknown = [port.name for port in inputs if port.name not in KNOWN_INPUTS]
    if unknown or not inputs:
        raise ModelUnsupported(f"{path}: takes {', '.join(unknown)}; supported inputs are {', '.join(KNOWN_INPUTS)}")
    by_name = {port.name: port for port in results}
    result = next((by_name[name] for name in _RESULTS if name in by_name), None)
    if result is None or len(result.shape) not in (2, 3) or result.shape[-1] < 1:
        raise ModelUnsupported(
            f"{path}: gives {', '.join(by_name) or 'nothing'}; supported is one of {', '.join(_RESULTS)} of fixed width"
        )
    return OwnGraph(
        path=path,
        inputs=tuple(port.name for port in inputs),
        wide=any(port.kind in _WIDE for port in inputs),
        result=result.name,
        pooled=len(result.shape) == 2,
        hidden=result.shape[-1],
    )


def _read_onnx(path: Path) -> tuple[list[_Port], list[_Port]]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise ModelBroken(f"{path}: not an ONNX file: {error}") from error
    weights = {tensor.name for tensor in graph.initializer}

    def port(value: onnx.ValueInfoProto) -> _Port:
        kind = value.type.tensor_type
        wide = kind.elem_type == onnx.TensorProto.INT64
        return _Port(value.name, "tensor(int64)" if wide else "other", tuple(d.dim_value for d in kind.shape.dim))

    return [port(value) for value in graph.input if value.name not in weights], [port(v) for v in graph.output]


def _read_xml(path: Path) -> tuple[list[_Port], list[_Port]]:
    if not path.with_suffix(".bin").is_file():
        raise ModelBroken(f"{path}: its weights {path.with_suffix('.bin').name} are missing")
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise ModelBroken(f"{path}: not an OpenVINO model: {error}") from error
    inputs: list[_Port] = []
    results: list[_Port] = []
    for layer in root.iter("layer"):
        data = layer.find("data")
        for out in layer.iter("port"):
            for name in filter(None, (out.get("names") or "").split(",")):
                shape = tuple(max(0, int(dim.text or 0)) for dim in out.iter("dim"))
                kind = (data.get("element_type") or "") if data is not None else ""
                (inputs if layer.get("type") == "Parameter" else results).append(_Port(name, kind, shape))
    return inputs, [port for port in results if port.name in _RESULTS]
