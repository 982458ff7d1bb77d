"""On a real GPU: what tests on the CPU only stand in for. Skipped where there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tandem.backends.base import BackendOptions
from tandem.backends.graph_model import built_model
from tandem.backends.proof import BOUNDS, smallest_cosine
from tandem.backends.torch_backend import TorchBackend
from tandem.backends.torch_device import CudaDevice, list_devices
from tandem.backends.torch_forward import TorchOptions
from tandem.backends.torch_varlen import VarlenAttention
from tandem.errors import BackendFailed
from tandem.models.description import EncoderDescription, LayerSpec
from tandem.models.reference import forward
from tandem.types import Tier, TokenBatch
from tests.tiny_models import random_weights, tiny
from tests.torch_encoders import ENCODERS, RELATIVE, flat_batch

ALL = {**ENCODERS, "relative": RELATIVE}
# Large enough that launching takes longer than computing.
DEEP = tiny((LayerSpec(),) * 12, {"hidden": 128, "heads": 2, "intermediate": 256})
LENGTHS = [5, 24, 1, 7, 7, 20, 24, 24]

Make = Callable[..., TorchBackend]


@pytest.fixture(scope="module")
def gpu() -> CudaDevice:
    try:
        return list_devices()[0]
    except BackendFailed as reason:
        pytest.skip(str(reason))


@pytest.fixture
def make(gpu: CudaDevice, request: pytest.FixtureRequest) -> Make:
    def made(d: EncoderDescription, tier: Tier, tuning: TorchOptions | None = None) -> TorchBackend:
        model = built_model(d, random_weights(d))
        backend = TorchBackend(model, BackendOptions(tier=tier, streams=2, device=gpu.device), tuning)
        request.addfinalizer(backend.close)
        return backend

    return made


def expected(d: EncoderDescription, batch: TokenBatch) -> NDArray[np.float32]:
    return forward(d, random_weights(d), batch)


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("encoder", ALL)
def test_rows_are_within_the_tier(make: Make, encoder: str, tier: Tier) -> None:
    d = ALL[encoder]
    backend = make(d, tier)
    for lengths in ([3], LENGTHS, LENGTHS * 40):
        batch = flat_batch(lengths, skips=d.skips_prompt)
        assert smallest_cosine(backend.run(batch), expected(d, batch)) >= BOUNDS[tier]


def test_the_one_call_passes_its_trial(gpu: CudaDevice, make: Make) -> None:
    if not gpu.bf16:
        pytest.skip("FlashAttention needs Ampere")
    backend = make(ENCODERS["rotary and windows"], Tier.BF16)
    assert isinstance(backend._forward._attention, VarlenAttention)


def test_graphs_are_recorded_and_give_the_same_rows(gpu: CudaDevice, make: Make) -> None:
    if not gpu.bf16:
        pytest.skip("there are graphs where there is one call for attention")
    with_graphs, without = make(DEEP, Tier.BF16), make(DEEP, Tier.BF16, TorchOptions(graph_tokens=0))
    assert with_graphs._graphs.buckets
    assert not without._graphs.buckets
    for seed, lengths in enumerate([[3], [16] * 4, LENGTHS, [24] * 20, [1] * 8, [3]]):
        batch = flat_batch(lengths, seed=seed)
        assert smallest_cosine(with_graphs.run(batch), without.run(batch)) >= 0.9999


def test_a_text_has_the_same_row_in_any_company(make: Make) -> None:
    backend = make(DEEP, Tier.BF16, TorchOptions(graph_tokens=0))
    batch = flat_batch(LENGTHS)
    together = backend.run(batch)
    for row, text in zip(together, batch.texts(), strict=True):
        alone = TokenBatch(text[None], np.array([len(text)], np.int32))
        assert smallest_cosine(backend.run(alone), row[None]) >= 0.9999


def test_threads_do_not_mix_their_batches(make: Make) -> None:
    backend = make(DEEP, Tier.BF16)
    batches = [flat_batch(LENGTHS * times, seed=times) for times in (1, 5, 60)]
    rows = [backend.run(batch) for batch in batches]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(50):
            index = (seed + step) % len(batches)
            if smallest_cosine(backend.run(batches[index]), rows[index]) < 0.9999:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_steady_state_asks_the_system_for_nothing(gpu: CudaDevice, make: Make) -> None:
    backend = make(DEEP, Tier.BF16)
    batches = [flat_batch(LENGTHS * times, seed=times) for times in range(1, 40)]

    def asked() -> tuple[int, int]:
        return backend.store_allocations(), int(torch.cuda.memory_stats(gpu.device)["segment.all.allocated"])

    for batch in reversed(batches):
        backend.run(batch)
    before = asked()
    for _ in range(3):
        for batch in batches:
            backend.run(batch)
    assert asked() == before


def test_a_share_that_can_not_hold_the_model_is_refused(gpu: CudaDevice) -> None:
    options = BackendOptions(tier=Tier.FP32, device=gpu.device, memory_bytes=1 << 20)
    with pytest.raises(BackendFailed, match="GiB with one batch"):
        TorchBackend(built_model(DEEP, random_weights(DEEP)), options)
