"""One model on two real and very unequal devices at once: a vector does not depend on which of them computed it."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.graph_model import graph_model
from tandem.backends.proof import BOUNDS, smallest_cosine
from tandem.batching import POLICIES
from tandem.build import limits_of
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.models.folder import ModelFolder
from tandem.models.loaded import load_model
from tandem.scheduling.base import Group, Item
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.device import Device, DeviceOptions
from tandem.scheduling.dispatch import DISPATCHERS
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import Outcome, Output, Priority, Tier, TokenBatch
from tandem.workers.inline import InlineWorker

WORDS = ("quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "seven", "wizards", "boil", "potions")


@pytest.mark.parametrize("dispatcher", ["earliest_finish", "round_robin"])
def test_two_engines_serve_one_queue(minilm_folder: ModelFolder, dispatcher: str) -> None:
    pytest.importorskip("torch")
    model = load_model(minilm_folder)
    settings, clock = Settings(), SystemClock()
    backends = {name: BACKENDS.get(name)(graph_model(model), BackendOptions()) for name in ("openvino", "torch")}
    devices = []
    for name, backend in backends.items():
        limits = limits_of(settings, model, backend.packing)
        devices.append(Device(POLICIES.get("memory_aware")(limits), DeviceOptions(id=name, limits=limits)))
    workers = [InlineWorker(backend, clock, name) for name, backend in backends.items()]
    heard: list[Outcome] = []
    core = SchedulerCore(devices, DISPATCHERS.get(dispatcher)())
    loop = SchedulerLoop(core, workers, clock, model.tokenizer.pad_id, heard.append)
    texts = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 2 + i % 23)) for i in range(80)]
    ids = model.tokenizer.encode(texts, truncate=True).ids

    async def one(index: int, output: Output) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        group = Group(1, asyncio.get_running_loop().create_future(), Priority.NORMAL, output)
        await loop.run(group, [Item(group, 0, ids[index], 0)])
        (row,) = group.rows
        assert row is not None
        return row

    async def work() -> tuple[list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], ...]:
        pooled = await asyncio.gather(*(one(index, Output.POOLED) for index in range(len(ids))))
        tokens = await asyncio.gather(*(one(index, Output.TOKENS) for index in range(20)))
        await loop.close()
        return pooled, tokens

    pooled, tokens = asyncio.run(work())
    lengths = np.array([len(row) for row in ids], np.int32)
    padded = np.zeros((len(ids), int(lengths.max())), np.int32)
    for place, row in enumerate(ids):
        padded[place, : len(row)] = row
    reference = model.reference(TokenBatch(ids=padded, lengths=lengths))
    assert smallest_cosine(np.stack(pooled), reference) >= BOUNDS[Tier.FP32]
    states = model.reference(TokenBatch(ids=padded[:20], lengths=lengths[:20], output=Output.TOKENS))
    for place, found in enumerate(tokens):
        assert found.shape == (lengths[place], 384)
        np.testing.assert_allclose(found, states[place, : lengths[place]], atol=2e-4)
    ran = Counter(outcome.device_id for outcome in heard)
    assert set(ran) == {"openvino", "torch"}, "both did some of it"
    assert all(outcome.ok for outcome in heard)
    assert sum(outcome.n for outcome in heard) == 100
