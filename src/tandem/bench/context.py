"""What the parts of ``tandem bench serve`` share: the model, the texts, a folder for their files, the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tandem.bench.judge import Judge
from tandem.bench.load import LoadResult
from tandem.bench.options import BenchOptions
from tandem.bench.peers import available, infinity_server
from tandem.bench.processes import Server, ServerSpec, tandem_server
from tandem.bench.report import Report
from tandem.bench.stats import Vectors
from tandem.bench.texts import TextSet
from tandem.config import Settings
from tandem.models.loaded import LoadedModel


class Context(msgspec.Struct, frozen=True):
    """One run of ``tandem bench serve``."""

    options: BenchOptions
    settings: Settings
    model: LoadedModel
    mix: TextSet
    questions: TextSet
    folder: Path
    report: Report

    @property
    def tandem(self) -> ServerSpec:
        return tandem_server(self.options.model, self.options.precision, self.options.threads)

    def start(self, spec: ServerSpec) -> Server:
        """A server that is not started yet: use it as a context manager."""
        return Server(spec, self.folder / f"{spec.name.replace(' ', '-')}.log")

    def infinities(self) -> list[ServerSpec]:
        """infinity as it comes, and in bf16; none where it is not set up."""
        options = self.options
        if "infinity" not in options.peers or not available(options.peers_folder, "infinity"):
            return []
        path = self.model.folder.path
        return [infinity_server(options.peers_folder, path, options.threads, dtype) for dtype in ("auto", "bfloat16")]

    def judge(self, texts: Sequence[str]) -> Judge:
        return Judge(self.model, texts)

    def note_errors(self, name: str, result: LoadResult) -> None:
        """A load in which anything failed is a problem of the whole report."""
        if result.errors:
            self.report.problems.append(f"{name}: {result.errors} {result.first_error}")


class _Kept(msgspec.Struct):
    index: int
    body: msgspec.Raw


class _Row(msgspec.Struct):
    index: int
    embedding: list[float]


class _Embeddings(msgspec.Struct):
    data: list[_Row]


def kept_rows(path: Path) -> Vectors:
    """The rows of the answers that ``LoadJob.keep`` wrote, in the order of the bodies: float32 [n, d]."""
    rows: list[list[float]] = []
    for line in path.read_bytes().splitlines():
        answer = msgspec.json.decode(msgspec.json.decode(line, type=_Kept).body, type=_Embeddings)
        rows += [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]
    return np.array(rows, np.float32)
