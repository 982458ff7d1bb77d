"""What serves on people's machines tells nobody and leaves nothing in their home.

OpenVINO and ONNX Runtime both do, left to themselves (``tandem/backends/quiet_*.py`` say how), and that is how these
tests are known to be able to fail.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live import watched

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in watched.SOCKET_CALL,
    reason="native code is watched by seccomp, which is Linux's",
)

QUIET_OPENVINO = "from tandem.backends.quiet_openvino import ov\n"
QUIET_ONNXRUNTIME = "from tandem.backends.quiet_onnxruntime import ort\n"

RUN_OPENVINO = """
import numpy
x = ov.opset13.parameter([-1, 4], ov.Type.f32)
compiled = ov.Core().compile_model(ov.Model([ov.opset13.relu(x)], [x]), "CPU")
assert compiled(numpy.ones((1, 4), numpy.float32))[0].sum() == 4
"""

RUN_ONNXRUNTIME = """
import numpy, onnx
x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy")
graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {"x": numpy.ones(4, numpy.float32)})[0].sum() == 4
"""

IMPORT_THE_OTHERS = """
import anyio, arro3.core, arro3.io, httptools, huggingface_hub, msgspec, orjson, prometheus_client
import tokenizers, tqdm, uvicorn, uvloop
"""


@dataclass(frozen=True)
class Told:
    """What a program did that it should not. ``events`` are Python's, ``killed`` means that native code did."""

    events: list[str]
    killed: bool
    left_at_home: list[str]


def told(program: str, folder: Path) -> Told:
    """Run ``program`` to its end under watch, at home in an empty folder."""
    log, home = folder / "events", folder / "home"
    home.mkdir()
    # OpenVINO is quiet under CI of its own accord, ONNX Runtime when told; people's machines say neither.
    quieting = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in quieting}
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", watched.__file__, str(log), program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    killed = done.returncode == -31
    assert killed or done.returncode == 0, done.stderr
    return Told(log.read_text().split(), killed, [str(path.relative_to(home)) for path in home.rglob("*")])


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(QUIET_OPENVINO + RUN_OPENVINO, id="openvino"),
        pytest.param(QUIET_ONNXRUNTIME + RUN_ONNXRUNTIME, id="onnxruntime"),
        pytest.param(QUIET_OPENVINO + QUIET_ONNXRUNTIME + IMPORT_THE_OTHERS, id="all"),
    ],
)
def test_serving_packages_tell_nobody(program: str, tmp_path: Path) -> None:
    assert told(program, tmp_path) == Told([], killed=False, left_at_home=[])


def test_openvino_alone_would(tmp_path: Path) -> None:
    """If this fails, OpenVINO has stopped reporting, and ``quiet_openvino`` may go."""
    seen = told("import openvino as ov" + RUN_OPENVINO, tmp_path)
    assert "socket.getaddrinfo" in seen.events
    assert "intel" in seen.left_at_home


def test_onnxruntime_alone_would(tmp_path: Path) -> None:
    """If this fails, ONNX Runtime has stopped reporting, and ``quiet_onnxruntime`` may go."""
    seen = told("import onnxruntime as ort" + RUN_ONNXRUNTIME, tmp_path)
    assert seen.killed or any("onnxruntime" in name for name in seen.left_at_home)


def test_native_sockets_are_seen(tmp_path: Path) -> None:
    seen = told("import ctypes; ctypes.CDLL(None).socket(2, 1, 0)", tmp_path)
    assert seen.killed
