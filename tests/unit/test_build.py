"""Names become objects: a real engine on a tiny model, and verdicts that no longer hold."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tandem.backends.probe import Verdict
from tandem.batching import BatchLimits
from tandem.build import build_engine, warm_shapes
from tandem.config import Settings
from tandem.engine import Engine
from tandem.errors import BackendFailed, ConfigError, ModelBroken
from tandem.types import EmbedRequest, Outcome, Packing, Tier
from tests.engines import words, write_word_model


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
        warm=False,
    )


def embedded(engine: Engine, *texts: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    async def work() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        await engine.start()
        result = await engine.embed(EmbedRequest(inputs=list(texts)))
        await engine.close()
        assert isinstance(result.rows, np.ndarray)
        return result.rows

    return asyncio.run(work())


def test_an_engine_from_settings(settings: Settings) -> None:
    heard: list[Outcome] = []
    engine = build_engine(msgspec.structs.replace(settings, threads=1, warm=True), observer=heard.append)
    assert engine.model.backend == "onnxruntime"
    assert engine.model.tier is Tier.FP32
    assert engine.model.device == "cpu (onnxruntime, 1 threads, 1 streams)"
    assert (engine.model.dims, engine.model.max_tokens, engine.model.pooling) == (16, 20, "mean")
    rows = embedded(engine, words(1, 2), words(3), words(1, 2))
    assert rows.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-5)
    assert sum(one.n for one in heard) == 2, "the third text is the first"


def test_names_that_requests_may_use(settings: Settings) -> None:
    named = msgspec.structs.replace(settings, backend="fake", served_model_name=("public", "old"))
    model = build_engine(named).model
    assert model.id == "public"
    assert model.aliases == ("public", "old", settings.model, "tiny")
    assert build_engine(msgspec.structs.replace(settings, backend="fake")).model.id == settings.model


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"policy": "magic"}, "unknown batch policy 'magic'; known are: memory_aware, fixed"),
        ({"backend": "tpu"}, "unknown backend 'tpu'; known are: openvino, onnxruntime"),
    ],
)
def test_wrong_names_are_told_before_a_model_is_looked_for(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_engine(msgspec.structs.replace(Settings(model="/no/such/model"), **changes))


def test_a_verdict_that_no_longer_holds_is_made_anew(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    build_engine(settings)
    (file,) = (Path(settings.store_dir).parent / "probes").iterdir()
    good = msgspec.json.decode(file.read_bytes(), type=Verdict)
    wrong = (-good.reference_rows(5)).tobytes()
    for reference in (wrong, wrong[: len(wrong) // 2]):
        file.write_bytes(msgspec.json.encode(msgspec.structs.replace(good, reference=reference)))
        caplog.clear()
        assert embedded(build_engine(settings), words(1)).shape == (1, 16)
        assert "probing anew" in caplog.text
        assert msgspec.json.decode(file.read_bytes(), type=Verdict).reference == good.reference


def test_an_engine_that_is_wrong_in_this_process_too_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.backends.onnxruntime.OnnxRuntimeBackend.run", lambda self, batch: np.ones((5, 16)))
    with pytest.raises(BackendFailed, match="passed its probe but not its proof"):
        build_engine(settings)


def test_an_engine_that_fails_in_this_process_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, batch: object) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr("tandem.backends.onnxruntime.OnnxRuntimeBackend.run", broken)
    with pytest.raises(BackendFailed, match="fails in the process that serves: no kernel"):
        build_engine(settings)


def test_a_broken_model_is_named(settings: Settings) -> None:
    (Path(settings.model) / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelBroken, match=r"model\.safetensors"):
        build_engine(settings)


def test_asking_for_bf16_where_it_is_not_to_be_had_serves_better(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = build_engine(msgspec.structs.replace(settings, precision="bf16"))
    assert engine.model.tier is Tier.FP32
    assert engine.model.dtype == "float32"
    assert "bf16 is not to be had on cpu" in caplog.text


@pytest.mark.parametrize("packing", Packing)
@pytest.mark.parametrize("max_width", [20, 256, 512, 8192])
def test_warm_shapes_are_batches_that_may_be(max_width: int, packing: Packing) -> None:
    limits = BatchLimits(max_tokens=1024, max_width=max_width, packing=packing)
    shapes = warm_shapes(limits)
    assert any(n == 1 for n, _ in shapes), "one question alone is the commonest of all"
    assert all(n >= 1 and width <= max_width and n * width <= 1024 for n, width in shapes)
    assert len(set(shapes)) == len(shapes)
