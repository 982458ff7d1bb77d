"""ONNX Runtime without its telemetry; the only module that imports it. Others take ``ort`` from here.

The official builds report to an analytics service from native code, as soon as they are imported, and leave an id and
a database under ``~/.cache/Microsoft`` (their Privacy.md). A switch in the environment keeps all of it from starting.
``disable_telemetry_events()`` does not do: it comes after the first report.
"""

from __future__ import annotations

import os

# Who sets the variable to something else wants it so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["ort"]
