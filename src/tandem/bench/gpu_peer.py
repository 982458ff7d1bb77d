"""The same work by transformers, padded, in the same process: what sentence-transformers runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tandem.backends.torch_backend import TorchBackend
from tandem.backends.torch_device import CudaDevice, dtype_name
from tandem.bench.ceiling import Ceiling
from tandem.bench.gpu_engine import Lent
from tandem.bench.gpu_measure import timed
from tandem.bench.gpu_model import Subject, random_batch
from tandem.bench.gpu_options import GpuBenchOptions
from tandem.bench.gpu_torch import PaddedPeer, release
from tandem.bench.judge import PEER_BOUND
from tandem.bench.report import Check, Report, Series, missing, shown
from tandem.bench.stats import lowest_cosine, paired_ratio, summarize
from tandem.models.reference import forward
from tandem.types import Tier, TokenBatch

_AGAINST = "backend against transformers (padded, SDPA, same type)"
_BATCH_SIZES = (32, 128, 512)
_MEDIAN, _SIGMA = 50, 0.9


def against_peer(
    backend: TorchBackend,
    subject: Subject,
    options: GpuBenchOptions,
    device: CudaDevice | None,
    report: Report,
) -> None:
    """Texts of one length, and of mixed lengths, on both, round by round in turn. The peer's batch size is its best."""
    tier = Tier(options.precision)
    try:
        peer = PaddedPeer(subject, "cpu" if device is None else device.device, dtype_name(tier, device))
    except ImportError as error:
        report.figures.append(missing(_AGAINST, "", f"not installed: {error}"))
        return
    report.notes.append(f"transformers {peer.version}, its own model, SDPA, mean pooling, token ids given")
    d = subject.description
    if d.pooling == ("mean",) and not d.dense:
        probe = random_batch(d, [3, 40, 9], options.seed)
        cosine = lowest_cosine(peer.run(list(probe.texts()), 3), forward(d, subject.weights, probe))
        report.checks.append(Check("transformers' rows against the fp32 reference", cosine, PEER_BOUND[tier]))
    for name, lengths in _works(options, d.max_positions).items():
        _compare(backend, peer, options, report, (name, random_batch(d, lengths, options.seed)))
    del peer
    release()


def _works(options: GpuBenchOptions, longest: int) -> dict[str, list[int]]:
    """Lengths of texts: all the same, and spread as those of real collections are, many short and few long."""
    count = 16 if options.quick else 4096
    drawn = np.random.default_rng(options.seed).lognormal(np.log(_MEDIAN), _SIGMA, count)
    most = min(longest, options.longest)
    return {"50 tokens a text": [50] * count, "mixed lengths": [int(x) for x in np.clip(drawn, 3, most)]}


def _compare(
    backend: TorchBackend, peer: PaddedPeer, options: GpuBenchOptions, report: Report, work: tuple[str, TokenBatch]
) -> None:
    name, batch = work
    texts = list(batch.texts())
    size = min(_BATCH_SIZES, key=lambda size: timed(lambda: peer.run(texts, size))) if not options.quick else 8
    ceiling = Ceiling(Lent(backend))
    ours = _cut(texts, options.batch_tokens)
    peer.run(texts, size)
    ceiling.seconds(ours)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(options.rounds):
        seconds["ours"].append(ceiling.seconds(ours))
        seconds["peer"].append(timed(lambda: peer.run(texts, size)))
    ceiling.close()
    tokens = int(batch.lengths.sum())
    for who, key in (("tandem beside it", "ours"), (f"transformers, {size} a batch", "peer")):
        found = summarize([tokens / taken for taken in seconds[key]])
        report.series.append(Series(f"{who}, {name}", "tokens/s", found))
    report.figures.append(shown(f"{_AGAINST}, {name}", paired_ratio(seconds["peer"], seconds["ours"]), "x"))


def _cut(texts: Sequence[NDArray[np.int32]], batch_tokens: int) -> list[TokenBatch]:
    """Flat batches of up to ``batch_tokens``, in the order given: no padding, so no sorting."""
    found: list[TokenBatch] = []
    pending: list[NDArray[np.int32]] = []
    for text in [*texts, None]:
        if text is None or (pending and sum(map(len, pending)) + len(text) > batch_tokens):
            sizes = np.array([len(one) for one in pending], np.int32)
            places = (np.cumsum(sizes) - sizes).astype(np.int32)
            found.append(TokenBatch(np.concatenate(pending)[None], sizes, places=places))
            pending = []
        if text is not None:
            pending.append(text)
    return found
