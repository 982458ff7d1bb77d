"""``tandem bench offline``: the library against its own backend and against in-process peers.

One run, rounds interleaved. Peers live in processes of their own, with their own packages, and are idle while others
are timed; what is timed is the call that embeds a list of texts, loading left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from tandem.bench.ceiling import Ceiling, cut_batches, waste
from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.judge import Judge
from tandem.bench.options import BenchOptions
from tandem.bench.peers import LIBRARY_PEERS, LibraryPeer, PeerProcess, available
from tandem.bench.report import Report, Series, at_least, at_most, missing, shown
from tandem.bench.stats import interleave, paired_ratio, summarize
from tandem.bench.texts import cutter, english_mix
from tandem.config import Settings, source_options
from tandem.embedder import Embedder
from tandem.errors import JobError
from tandem.fleet import build_backend
from tandem.models.loaded import LoadedModel, load_model
from tandem.models.resolve import find_model
from tandem.types import Tier, TokenBatch

# What the library puts under way at once (embedder.py); the ceiling's batches are cut from the same.
CHUNK, CHUNKS_AHEAD = 512, 3
OWN = "tandem library"
CEILING = "tandem backend alone"
AGAINST_ST = "library, bf16 tier, against sentence-transformers (torch fp32)"


def offline(options: BenchOptions) -> Report:
    """Run it. Raises ModelError, ConfigError, BackendFailed, and JobError when a peer breaks."""
    settings = Settings(cache="off", model=options.model, precision=options.precision, threads=options.threads)
    folder = find_model(settings.model, source_options(settings))
    model = load_model(folder)
    mix = english_mix(options.data, cutter(folder.path), options.texts)
    ids = model.tokenizer.encode(mix.texts, truncate=True).ids
    tokens = sum(map(len, ids))
    workload = {
        "model": f"{folder.name}, {options.precision}, {options.threads} threads",
        "texts": f"{len(mix.texts)} texts, {tokens} tokens, {mix.source}",
        "rounds": f"{options.rounds} counted, 1 warm-up, interleaved; seed {options.seed}",
    }
    report = Report("tandem bench offline", conditions(workload))
    neighbours = Neighbours()
    judge = Judge(model, mix.texts)
    with ExitStack() as stack:
        runs = _Runs(Path(stack.enter_context(tempfile.TemporaryDirectory())), mix.texts)
        embedder = stack.enter_context(Embedder(options.model, settings=settings, precision=options.precision))
        runs.add(OWN, lambda: embedder.embed(mix.texts))
        ceiling, batches = _ceiling(settings, model, mix.texts)
        stack.callback(ceiling.close)
        for peer in _chosen(options):
            process = PeerProcess(peer, options.peers_folder, folder.path, options.threads)
            runs.add_peer(stack.enter_context(process))
        report.checks.append(judge.check(OWN, embedder.embed(mix.texts), embedder.model.tier))
        for process in runs.peers:
            tier = Tier.BF16 if process.peer.options else Tier.FP32
            report.checks.append(judge.check(process.peer.name, runs.rows(process), tier, peer=True))
            report.notes.append(f"{process.peer.name}: {process.setup.text()}")
        timed = {OWN: runs.timed[OWN], CEILING: lambda: ceiling.seconds(batches), **runs.timed}
        seconds = interleave(timed, options.rounds)
    report.busy_by_others = neighbours.share()
    _report(report, seconds, tokens, waste(batches))
    return report


class _Runs:
    """The timed ways of embedding the same texts."""

    def __init__(self, folder: Path, texts: list[str]) -> None:
        self._folder = folder
        self._texts = texts
        self._file = folder / "texts.json"
        self._file.write_bytes(msgspec.json.encode(texts))
        self.timed: dict[str, Callable[[], float]] = {}
        self.peers: list[PeerProcess] = []

    def add(self, name: str, run: Callable[[], object]) -> None:
        def timed() -> float:
            started = time.perf_counter()
            run()
            return time.perf_counter() - started

        self.timed[name] = timed

    def add_peer(self, process: PeerProcess) -> None:
        self.peers.append(process)
        self.timed[process.peer.name] = lambda: process.embed(self._file).seconds[0]

    def rows(self, process: PeerProcess) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return process.rows(self._texts, self._folder)


def _chosen(options: BenchOptions) -> list[LibraryPeer]:
    return [
        peer
        for peer in LIBRARY_PEERS
        if peer.environment in options.peers and available(options.peers_folder, peer.environment)
    ]


def _ceiling(settings: Settings, model: LoadedModel, texts: list[str]) -> tuple[Ceiling, list[TokenBatch]]:
    backend = build_backend(settings, model)
    ids = model.tokenizer.encode(texts, truncate=True).ids
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    batches = cut_batches(settings, model, chunks, CHUNKS_AHEAD, backend)
    if sum(len(batch.lengths) for batch in batches) != len(ids):
        raise JobError("the scheduler lost a text")
    return Ceiling(backend), batches


def _report(report: Report, seconds: dict[str, list[float]], tokens: int, padding: float) -> None:
    for name, taken in seconds.items():
        report.series.append(Series(name, "tokens/s", summarize([tokens / s for s in taken])))
    own = seconds[OWN]
    fp32 = "sentence-transformers fp32"
    if fp32 in seconds:
        report.figures.append(at_least(AGAINST_ST, 7, paired_ratio(seconds[fp32], own), "x"))
    else:
        report.figures.append(missing(AGAINST_ST, ">= 7x", "sentence-transformers is not set up"))
    report.figures.append(at_least("library against its own backend", 0.9, paired_ratio(seconds[CEILING], own), "x", 3))
    for name in seconds:
        if name not in (OWN, CEILING, fp32):
            report.figures.append(shown(f"library against {name}", paired_ratio(seconds[name], own), "x"))
    report.figures.append(at_most("padding waste", 5, padding * 100, " %"))
