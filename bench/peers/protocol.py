"""The peer side of the benchmark protocol: JSON lines in, JSON lines out.

Runs inside a peer's own environment, so it needs nothing but the standard library and numpy, and never imports
tandem. The benchmark starts the script once, keeps it alive, and interleaves its runs with Tandem's, so that both meet
the same machine in the same minutes.

Jobs, one JSON object a line, each answered by one line:

``{"op": "load", "model": DIR, "threads": 2, "batch_size": 32}``
    answers ``{"ok": true, "load_s": ..., "versions": {...}, "settings": {...}}``
``{"op": "embed", "texts": FILE, "repeats": 1, "vectors": FILE or null}``
    reads a JSON list of texts, answers ``{"ok": true, "seconds": [...], "rows": n, "checksum": ...}`` and writes the
    vectors of the last repeat as float32 ``.npy`` when asked
End of input ends the process. A job that fails answers ``{"ok": false, "error": ...}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to float32 rows [n, d], in the order given."""

Load = Callable[[dict[str, Any]], tuple[Embed, dict[str, Any]]]
"""A load job to an embedding function and the settings it was given, for the report."""


def serve(load: Load, packages: Sequence[str]) -> None:
    """Answer jobs until the input ends. ``packages`` are the distributions whose versions are reported."""
    out = _claim_stdout()
    embed: Embed | None = None
    for line in sys.stdin:
        job = json.loads(line)
        try:
            if job["op"] == "load":
                started = time.perf_counter()
                embed, settings = load(job)
                answer = {"load_s": time.perf_counter() - started, "settings": settings}
                answer["versions"] = {name: version(name) for name in packages}
            elif job["op"] == "embed" and embed is not None:
                answer = _embed(embed, job)
            else:
                raise ValueError(f"unexpected op {job['op']!r}")
        except Exception as error:  # noqa: BLE001  the benchmark must hear of it in words, not as a closed pipe
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps({"ok": True, **answer}) + "\n")
        out.flush()


def _claim_stdout() -> Any:
    """Keep the pipe for answers alone: libraries print progress to stdout, which goes to stderr from here on."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _embed(embed: Embed, job: dict[str, Any]) -> dict[str, Any]:
    with open(job["texts"], encoding="utf-8") as file:
        texts = json.load(file)
    seconds = []
    rows = np.empty((0, 0), np.float32)
    for _ in range(job.get("repeats", 1)):
        started = time.perf_counter()
        rows = np.ascontiguousarray(embed(texts), dtype=np.float32)
        seconds.append(time.perf_counter() - started)
    if job.get("vectors"):
        np.save(job["vectors"], rows)
    return {"seconds": seconds, "rows": len(rows), "checksum": zlib.crc32(rows.tobytes())}
