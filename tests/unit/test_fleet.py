"""Which workers are started, with what, and what becomes of a device that can not serve."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tandem.backends.cpu import CpuInfo
from tandem.build import build_engine
from tandem.config import Settings
from tandem.errors import BackendFailed, ConfigError
from tandem.fleet import seat_devices, wish_of
from tandem.types import EmbedRequest, Tier
from tests.engines import words, write_word_model

CPU = CpuInfo("a CPU", 8, 8, None, ())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = write_word_model(tmp_path / "tiny")
    return Settings(
        model=str(folder),
        store_dir=str(tmp_path / "home" / "models"),
        backend="onnxruntime",
        precision="fp32",
        use_hub=False,
        use_package_index=False,
        device="cpu",
        warm=False,
    )


def changed(settings: Settings, **changes: object) -> Settings:
    return msgspec.structs.replace(settings, **changes)


def test_workers_on_one_device_share_its_threads_and_memory() -> None:
    seatings = seat_devices(Settings(device="cpu*2+cuda:0*2", threads=4), CPU)
    assert [seating.plan.id for seating in seatings] == ["cpu#1", "cpu#2", "cuda:0#1", "cuda:0#2"]
    assert [seating.threads for seating in seatings[:2]] == [2, 2] or seatings[0].cores is not None
    wish = wish_of(Settings(gpu_memory_fraction=0.8, gpu_memory_bytes=1000), seatings[2])
    assert (wish.device, wish.memory_fraction, wish.memory_bytes) == ("cuda:0", 0.4, 500)


def test_a_worker_alone_is_bound_to_no_core() -> None:
    (seating,) = seat_devices(Settings(device="cpu"), CPU)
    assert seating.cores is None
    assert seating.threads == 8


def test_the_fake_backend_needs_no_gpu() -> None:
    assert [seating.plan.id for seating in seat_devices(Settings(device="cuda:0", backend="fake"), CPU)] == ["cpu"]


def test_two_workers_serve_one_model(settings: Settings) -> None:
    engine = build_engine(changed(settings, device="cpu*2", threads=2))

    async def work() -> None:
        await engine.start()
        texts = [words(i % 90, (i * 7) % 90) for i in range(40)]
        found = await asyncio.gather(*(engine.embed(EmbedRequest(inputs=[text])) for text in texts))
        alone = await engine.embed(EmbedRequest(inputs=texts))
        assert isinstance(alone.rows, np.ndarray)
        together = np.concatenate([one.rows for one in found])
        np.testing.assert_allclose(together, alone.rows, atol=1e-5)
        await engine.close()

    asyncio.run(work())
    assert engine.model.tier is Tier.FP32
    assert {name: state.well for name, state in engine.devices().items()} == {"cpu#1": True, "cpu#2": True}
    assert engine.model.device.count("onnxruntime, 1 threads, 1 streams") == 2


def test_a_device_that_can_not_serve_is_left_out_with_a_line(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tandem"):
        engine = build_engine(changed(settings, device="cpu+cuda:7"))
    assert list(engine.devices()) == ["cpu"]
    assert "cuda:7" in caplog.text
    assert "the other devices serve without it" in caplog.text
    engine.halt()


def test_with_no_device_left_starting_is_refused_with_the_reason(settings: Settings) -> None:
    with pytest.raises(BackendFailed, match="no inference engine works on cuda:7"):
        build_engine(changed(settings, device="cuda:7"))
    with pytest.raises(BackendFailed, match=r"no device can serve\. cuda:6: .*cuda:7: "):
        build_engine(changed(settings, device="cuda:6,7"))


def test_what_is_no_device_is_told_before_a_model_is_started(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="'tpu' is no device"):
        build_engine(changed(settings, device="tpu"))


def test_the_cores_of_a_device_that_did_not_start_are_used_by_the_others(settings: Settings) -> None:
    engine = build_engine(changed(settings, device="cpu+cuda:7", threads=2))
    assert "2 threads" in engine.model.device
    engine.halt()
