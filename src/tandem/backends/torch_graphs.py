"""CUDA graphs for small batches: the whole forward pass as one launch instead of a hundred and fifty.

A launch costs the host some microseconds; for a few thousand tokens the GPU is done sooner than the host has launched.
A graph replays one shape over fixed memory, so a small batch goes into the smallest bucket that holds it, its ends
padded with the last one and ``longest`` the bucket's own. Larger batches run as they are: there padding would cost
more than launching.

Attention's grid has a block for each text and each stretch of ``longest``, whether they are there or not. Buckets
therefore come in two kinds: many short texts, and few of any length.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tandem.backends.torch_module import Feed, feed_of
from tandem.backends.torch_packing import Frame, Packed, fill, pack
from tandem.types import TokenBatch

log = logging.getLogger("tandem.backends")

Compute: TypeAlias = Callable[[Feed, int], Tensor]
"""A feed and the longest text it may hold -> rows float32 [texts, dims]."""

MOST_BUCKETS = 24
_SIZES = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384)
_SHORT = 128
"""The rows of one block of FlashAttention for heads of up to 64: a shorter ``longest`` saves no more."""
_MANY, _FEW = 8, 64
"""Tokens a text in a bucket for many short texts, and in one for few of any length."""
_MOST_PADDING = 2.0
"""A batch that would need a bucket of more than this many times its tokens runs as it is."""
_WORTH = 0.85
"""A graph is kept when it takes at most this share of the time that launching takes: that is how full buckets are."""
_TIMED = 3
_SAME = 0.9999


class Bucket(msgspec.Struct, frozen=True):
    """What one graph holds: up to ``tokens`` tokens of up to ``texts`` texts of up to ``longest`` tokens."""

    tokens: int
    texts: int
    longest: int

    @property
    def frame(self) -> Frame:
        return Frame(self.tokens, self.texts)

    def holds(self, packed: Packed) -> bool:
        return packed.tokens <= self.tokens and packed.texts <= self.texts and packed.longest <= self.longest


def make_buckets(most_tokens: int, longest: int) -> tuple[Bucket, ...]:
    """Buckets up to ``most_tokens``, at most 24, for texts of up to ``longest`` tokens; the cheapest first."""
    sizes = [size for size in _SIZES if size <= most_tokens]
    many = [Bucket(size, max(8, size // _MANY), min(longest, _SHORT)) for size in sizes]
    few = [
        Bucket(size, max(2, size // _FEW), min(longest, size)) for size in sizes if size > _SHORT and longest > _SHORT
    ]
    return tuple(sorted([*many, *few], key=_cost))


def choose_bucket(buckets: tuple[Bucket, ...], packed: Packed) -> Bucket | None:
    """The cheapest that holds the batch, None where it had better run as it is."""
    for bucket in buckets:
        if bucket.tokens > max(_MOST_PADDING * packed.tokens, _SIZES[0]):
            return None
        if bucket.holds(packed):
            return bucket
    return None


class StaticRun:
    """The forward pass over fixed memory: a block of its own that a batch's is copied into, rows that each run
    overwrites. Recorded on a GPU, run as it is elsewhere."""

    def __init__(self, bucket: Bucket, device: torch.device, compute: Compute) -> None:
        self.bucket = bucket
        self._block = torch.from_numpy(_sample(bucket)).to(device)
        self._compute = compute
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def __call__(self, block: Tensor) -> Tensor:
        """``block`` as ``bucket.frame`` lays it out -> rows float32 [bucket.texts, dims], good until the next run
        of any graph of the same pool."""
        self._block.copy_(block)
        return self._run() if self._recorded is None else self._replay(self._recorded)

    def record(self, pool: Any, stream: torch.cuda.Stream) -> str:
        """Record it on ``stream``, the current one; answers why it is of no use, empty when it is.

        Raises RuntimeError when something in it can not be recorded.
        """
        # What is made on first use (handles, workspaces, chosen kernels) must not be made while recording.
        expected = self._run().clone()
        launched_ms = _milliseconds(stream, self._run)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile; in the default mode that would spoil the recording.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            rows = self._run()
        replay = partial(self._replay, (graph, rows))
        cosine = float(functional.cosine_similarity(replay()[:1], expected[:1]))
        if not cosine >= _SAME:
            return f"its replay differs, cosine {cosine:.4f}"
        replayed_ms = _milliseconds(stream, replay)
        if replayed_ms > _WORTH * launched_ms:
            return f"it takes {replayed_ms:.2f} ms and launching {launched_ms:.2f} ms"
        self._recorded = (graph, rows)
        return ""

    def _run(self) -> Tensor:
        return self._compute(feed_of(self._block, self.bucket.frame), self.bucket.longest)

    @staticmethod
    def _replay(recorded: tuple[torch.cuda.CUDAGraph, Tensor]) -> Tensor:
        graph, rows = recorded
        graph.replay()
        return rows


class GraphBook:
    """The runs that serve small batches."""

    def __init__(self, runs: Sequence[StaticRun]) -> None:
        self._runs = {run.bucket: run for run in runs}
        self.buckets = tuple(sorted(self._runs, key=_cost))

    def find(self, packed: Packed) -> StaticRun | None:
        """The run that serves a batch, None where it had better run as it is."""
        bucket = choose_bucket(self.buckets, packed)
        return None if bucket is None else self._runs[bucket]


def record_all(
    buckets: Sequence[Bucket], device: torch.device, stream: torch.cuda.Stream, compute: Compute
) -> GraphBook:
    """Record bucket after bucket, from the smallest up to where it pays no more. All share one private pool of memory,
    as they run one after the other. What is not recorded runs as it is, and so does everything where CUDA refuses."""
    pool = torch.cuda.graph_pool_handle()
    runs: list[StaticRun] = []
    useless = 0
    with torch.cuda.stream(stream):
        for bucket in buckets:
            run = StaticRun(bucket, device, compute)
            try:
                why = run.record(pool, stream)
            except RuntimeError as error:
                log.warning("no CUDA graphs from %d tokens on: %s", bucket.tokens, " ".join(str(error).split()))
                break
            if not why:
                runs.append(run)
                useless = 0
                continue
            log.debug("no CUDA graph for %s: %s", bucket, why)
            # One may have been timed while something else used the GPU; two in a row are both kinds of a size.
            useless += 1
            if useless == 2:
                break
    stream.synchronize()
    log.info("%d CUDA graphs, up to %d tokens", len(runs), max((run.bucket.tokens for run in runs), default=0))
    return GraphBook(runs)


def _cost(bucket: Bucket) -> tuple[int, int]:
    return bucket.tokens, bucket.longest


def _sample(bucket: Bucket) -> NDArray[np.int32]:
    """A block with one text, as long as the bucket takes."""
    length = min(bucket.longest, bucket.tokens)
    batch = TokenBatch(np.zeros((1, length), np.int32), np.array([length], np.int32))
    block = np.empty(bucket.frame.size, np.int32)
    fill(block, bucket.frame, pack(batch))
    return block


def _milliseconds(stream: torch.cuda.Stream, run: Callable[[], Tensor]) -> float:
    """The mean over a few runs, as the device saw it: what it waited for the host counts."""
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record(stream)
    for _ in range(_TIMED):
        run()
    ended.record(stream)
    ended.synchronize()
    return float(began.elapsed_time(ended)) / _TIMED
