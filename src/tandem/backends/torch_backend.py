"""PyTorch on a GPU: the packed forward pass, with no padding at all. On a CPU it is slow, and there for tests.

PyTorch's global state belongs to the process, so nothing here sets it. Not its threads: who owns a process gives them
by OMP_NUM_THREADS, and ``options.threads`` changes nothing here. Not TF32: the fp32 tier refuses to start where the
process allows it. Not the limit of PyTorch's own allocator.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tandem.backends.base import BackendOptions, GraphModel
from tandem.backends.torch_device import CudaDevice, dtype_name, require_device, require_room
from tandem.backends.torch_forward import Forward, TorchOptions, make_forward, needed_bytes
from tandem.backends.torch_graphs import GraphBook, StaticRun, make_buckets, record_all
from tandem.backends.torch_module import feed_of
from tandem.backends.torch_packing import Frame, Packed, fill, pack, unpack_rows, unpack_states
from tandem.backends.torch_staging import RESERVE_BYTES, Lane, Pools, make_lanes
from tandem.errors import BackendFailed, ModelUnsupported
from tandem.models.description import EncoderDescription
from tandem.types import Output, Packing, Tier, TokenBatch

Finish = Callable[[], NDArray[np.float32]]


class TorchBackend:
    """Serves ``options.streams`` batches at once: while one is computed the next is packed and launched, and the rows
    of the last come back."""

    name = "torch"
    packing = Packing.FLAT

    def __init__(self, model: GraphModel, options: BackendOptions, tuning: TorchOptions | None = None) -> None:
        """Raises ModelUnsupported for a model that brings its own graph, ConfigError for a device that is not there,
        BackendFailed when PyTorch, CUDA or the device's memory do not suffice, RuntimeError for what CUDA says."""
        if model.description is None or model.weights is None:
            raise ModelUnsupported("a model served from its repository's own graph is not for the torch backend")
        tuning = tuning or TorchOptions()
        found = require_device(options.device)
        self.tier = options.tier
        self.dims = model.dims
        self.hidden = model.hidden
        self.streams = options.streams
        self._d = d = model.description
        self._device = torch.device("cpu" if found is None else found.device)
        dtype: torch.dtype = getattr(torch, dtype_name(options.tier, found))
        if found is not None:
            _check_gpu(d, options, found, dtype.itemsize, tuning)
        stream = None if found is None else torch.cuda.Stream(self._device)
        with torch.inference_mode():
            capability = None if found is None else found.capability
            self._forward = make_forward(d, model.weights, self._device, dtype, capability, tuning)
            self._graphs = _record(self._forward, d, tuning, self._device, stream)
        self._pools = Pools(self._device)
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        for lane in make_lanes(options.streams, self._pools, self._device, stream):
            self._lanes.put(lane)
        self._launching = Lock()
        self._closed = False

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        return self.begin(batch)()

    def begin(self, batch: TokenBatch) -> Finish:
        """The first half of ``run``: pack, send, launch. What it returns waits for the rows; it must be called once."""
        _check_batch(batch, self._d)
        packed = pack(batch, by_length=self._forward.by_length)
        static = self._graphs.find(packed) if batch.output is Output.POOLED else None
        frame = Frame(packed.tokens, packed.texts) if static is None else static.bucket.frame
        lane = self._lanes.get()
        try:
            fill(lane.stage(frame.size), frame, packed)
            block = lane.send()
            # One at a time: launches of two batches in turn would make both end with the later one.
            with self._launching, torch.inference_mode(), lane.computing():
                lane.fetch(self._compute(batch.output, packed, frame, block, static))
        except BaseException:
            self._abandon(lane)
            raise
        return partial(self._finish, lane, packed, batch)

    def store_allocations(self) -> int:
        """How often staging memory was taken from the system so far: it stands still in a steady state."""
        pools = {id(pool): pool for pool in (self._pools.host, self._pools.device)}
        return sum(pool.statistics().store_allocations for pool in pools.values())

    def close(self) -> None:
        """Idempotent. No batch may be under way."""
        if self._closed:
            return
        self._closed = True
        del self._forward, self._graphs
        self._lanes = SimpleQueue()
        self._pools.close()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _compute(self, output: Output, packed: Packed, frame: Frame, block: Tensor, static: StaticRun | None) -> Tensor:
        """float32 rows or states of the tier's type, of the batch's own texts or tokens."""

        def attempt() -> Tensor:
            feed = feed_of(block, frame)
            if output is Output.TOKENS:
                return self._forward.states(feed, packed.longest, packed)
            rows = self._forward.rows(feed, packed.longest, packed) if static is None else static(block)
            return rows[: packed.texts]

        try:
            return attempt()
        except torch.OutOfMemoryError:
            # What the allocator keeps of other shapes may be what is wanting.
            torch.cuda.empty_cache()
        try:
            return attempt()
        except torch.OutOfMemoryError as error:
            size = f"{packed.texts} texts of {packed.tokens} tokens"
            raise BackendFailed(f"{self._device} has no memory for a batch of {size}: {error}") from error

    def _finish(self, lane: Lane, packed: Packed, batch: TokenBatch) -> NDArray[np.float32]:
        try:
            found = lane.result()
        except BaseException:
            self._abandon(lane)
            raise
        self._lanes.put(lane)
        return unpack_states(found, packed, batch) if batch.output is Output.TOKENS else unpack_rows(found, packed)

    def _abandon(self, lane: Lane) -> None:
        lane.abandon()
        self._lanes.put(lane)


def _record(
    forward: Forward,
    d: EncoderDescription,
    tuning: TorchOptions,
    device: torch.device,
    stream: torch.cuda.Stream | None,
) -> GraphBook:
    if stream is None or not forward.static or not tuning.graph_tokens:
        return GraphBook(())
    # The weights came over on another stream.
    torch.cuda.synchronize(device)
    return record_all(make_buckets(tuning.graph_tokens, d.max_positions), device, stream, forward.rows)


def _check_gpu(
    d: EncoderDescription, options: BackendOptions, device: CudaDevice, itemsize: int, tuning: TorchOptions
) -> None:
    if options.tier is Tier.FP32 and torch.backends.cuda.matmul.fp32_precision == "tf32":
        raise BackendFailed(
            "this process lets PyTorch compute float32 in TF32, which the fp32 tier does not allow: "
            'torch.set_float32_matmul_precision("highest"), or take the bf16 tier'
        )
    needed = needed_bytes(d, itemsize, max(d.max_positions, tuning.graph_tokens)) + RESERVE_BYTES
    require_room(needed, device, options)


def _check_batch(batch: TokenBatch, d: EncoderDescription) -> None:
    """A wrong index on a GPU ends every later call of its process, so it must not get there."""
    if not 0 <= int(batch.ids.min()) <= int(batch.ids.max()) < d.vocab_size:
        raise ValueError(f"a token id is outside the vocabulary of {d.vocab_size}")
    if int(batch.lengths.max()) > d.max_positions:
        raise ValueError(f"a text has {int(batch.lengths.max())} tokens, the model takes {d.max_positions}")
