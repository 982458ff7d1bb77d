"""The PyTorch backend on this CPU: what it refuses, what it survives, what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from tandem.backends.base import BackendOptions, GraphModel
from tandem.backends.child_process import environment
from tandem.backends.graph_model import built_model
from tandem.backends.torch_backend import TorchBackend
from tandem.backends.torch_forward import Forward, TorchOptions, needed_bytes
from tandem.backends.torch_graphs import Bucket, GraphBook, StaticRun
from tandem.backends.torch_weights import load, weight_bytes
from tandem.errors import BackendFailed, ConfigError, ModelUnsupported
from tandem.models.description import Activation, EncoderDescription
from tandem.models.reference import forward
from tandem.types import Output, Tier, TokenBatch
from tests.tiny_models import random_weights, tiny
from tests.torch_encoders import CPU, ENCODERS, RELATIVE, flat_batch, one_forward

LENGTHS = [5, 24, 1, 7, 7, 20]


def model_of(d: EncoderDescription) -> GraphModel:
    return built_model(d, random_weights(d))


@pytest.fixture
def backend() -> Iterator[TorchBackend]:
    made = TorchBackend(model_of(tiny()), BackendOptions(streams=2))
    yield made
    made.close()


def test_token_rows_of_a_flat_batch_are_flat(backend: TorchBackend) -> None:
    batch = flat_batch(LENGTHS)
    found = backend.run(msgspec.structs.replace(batch, output=Output.TOKENS))
    assert found.shape == (1, sum(LENGTHS), 16)
    d = tiny()
    for place, text, length in zip(batch.starts(), batch.texts(), LENGTHS, strict=True):
        alone = TokenBatch(text[None], np.array([length], np.int32), output=Output.TOKENS)
        expected = forward(d, random_weights(d), alone)[0]
        np.testing.assert_allclose(found[0, place : place + length], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("encoder", [*ENCODERS, "relative"])
def test_the_16_bit_tier_keeps_its_promise(encoder: str) -> None:
    d = RELATIVE if encoder == "relative" else ENCODERS[encoder]
    backend = TorchBackend(model_of(d), BackendOptions(tier=Tier.BF16))
    batch = flat_batch(LENGTHS, skips=d.skips_prompt)
    rows, expected = backend.run(batch), forward(d, random_weights(d), batch)
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() >= 0.999


def test_a_model_with_its_own_graph_is_refused() -> None:
    model = msgspec.structs.replace(model_of(tiny()), description=None, weights=None)
    with pytest.raises(ModelUnsupported, match="own graph"):
        TorchBackend(model, BackendOptions())


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises((BackendFailed, ConfigError)):
        TorchBackend(model_of(tiny()), BackendOptions(device="cuda:99"))


@pytest.mark.parametrize(("ids", "length"), [([1, 50], 2), ([-1, 4], 2), ([3] * 30, 30)])
def test_what_would_end_a_gpu_process_does_not_get_there(backend: TorchBackend, ids: list[int], length: int) -> None:
    with pytest.raises(ValueError, match=r"vocabulary of 50|takes 24"):
        backend.run(TokenBatch(np.array([ids], np.int32), np.array([length], np.int32)))


def failing(times: int, error: Exception, forward_pass: Forward) -> Callable[..., Tensor]:
    left = [times]

    def rows(*arguments: object) -> Tensor:
        if left[0]:
            left[0] -= 1
            raise error
        return Forward.rows(forward_pass, *arguments)  # type: ignore[arg-type]

    return rows


def test_a_device_that_fails_is_told_and_costs_no_lane(backend: TorchBackend) -> None:
    lost = RuntimeError("CUDA error: the device is lost")
    backend._forward.rows = failing(5, lost, backend._forward)  # type: ignore[method-assign]
    for _ in range(5):
        with pytest.raises(RuntimeError, match="lost"):
            backend.run(flat_batch(LENGTHS))
    assert np.isfinite(backend.run(flat_batch(LENGTHS))).all()
    assert backend._pools.host.statistics().live == 0


def test_memory_that_wants_is_tried_for_again_then_named(backend: TorchBackend) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory")
    backend._forward.rows = failing(1, full, backend._forward)  # type: ignore[method-assign]
    assert np.isfinite(backend.run(flat_batch(LENGTHS))).all()
    backend._forward.rows = failing(2, full, backend._forward)  # type: ignore[method-assign]
    with pytest.raises(BackendFailed, match="no memory for a batch of 6 texts of 64 tokens"):
        backend.run(flat_batch(LENGTHS))


def test_small_batches_go_through_their_bucket() -> None:
    d = ENCODERS["prompted"]
    backend = TorchBackend(model_of(d), BackendOptions())
    backend._forward = one_forward(d)
    run = StaticRun(Bucket(128, 8, 24), CPU, backend._forward.rows)
    backend._graphs = GraphBook([run])
    batch = flat_batch(LENGTHS, skips=True)
    expected = forward(d, random_weights(d), batch)
    for found in (backend.run(batch), backend.run(batch)):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_steady_state_allocates_nothing(backend: TorchBackend) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        backend.run(flat_batch([int(length) for length in rng.integers(1, 24, rng.integers(1, 40))]))
    assert backend._pools.host.statistics().store_allocations == 1


def test_nothing_of_the_process_is_changed() -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.is_inference_mode_enabled()
    backend = TorchBackend(model_of(tiny()), BackendOptions(threads=1))
    backend.run(flat_batch(LENGTHS))
    after = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.is_inference_mode_enabled()
    assert before == after


def test_pytorch_is_imported_only_when_it_is_asked_for() -> None:
    modules = "tandem.build, tandem.backends.torch_device, tandem.cli.bench, tandem.server.app"
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        cwd=Path(__file__).parent,
    )
    assert said.stdout.strip() == "False"


def test_weights_take_what_was_predicted() -> None:
    d = ENCODERS["offset"]
    loaded = load(d, random_weights(d), CPU, torch.bfloat16)
    tensors: list[Tensor] = []

    def collect(value: object) -> None:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, tuple):
            for inner in value:
                collect(inner)

    collect(loaded)
    found = sum(tensor.nbytes for tensor in tensors)
    # The type's rows and the positions before the first are folded in or left out.
    assert weight_bytes(d, 2) - 2 * 3 * 16 == found
    assert needed_bytes(d, 2, 1000) > weight_bytes(d, 2) + 1000 * 2 * d.intermediate


@pytest.mark.parametrize("activation", [Activation.GELU, Activation.GELU_TANH])
def test_gelu_in_the_products_epilogue_is_close(activation: Activation) -> None:
    d = tiny(changes={"activation": activation})
    options = BackendOptions(tier=Tier.BF16)
    plain = TorchBackend(model_of(d), options).run(flat_batch(LENGTHS))
    fused = TorchBackend(model_of(d), options, TorchOptions(fused_gelu=True)).run(flat_batch(LENGTHS))
    cosines = (plain * fused).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(fused, axis=1)
    assert cosines.min() >= 0.9999
