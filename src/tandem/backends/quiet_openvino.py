"""OpenVINO without its telemetry; the only module that imports it. Others take ``ov`` from here.

``import openvino`` alone reports to an analytics service on the internet, from a child process that it forks, and
leaves an id under ``~/intel``, unless the person has opted out before. A server in a closed network has no business
doing either. OpenVINO does without the package ``openvino_telemetry`` where that can not be imported, so it can not be.
Rejected: leaving the package out of the lock, since ``pip install tandem-embed`` would still bring it along.
"""

from __future__ import annotations

import sys

# None makes an import raise ModuleNotFoundError. A process that loaded the package itself keeps it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402

__all__ = ["ov"]
