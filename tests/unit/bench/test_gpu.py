"""``tandem bench gpu``: the whole of it on this CPU, and its arithmetic."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tandem.bench.gpu_model import flops, made_subject, random_batch, texts_of
from tandem.bench.gpu_options import GpuBenchOptions
from tandem.cli import bench_gpu
from tandem.cli.main import main
from tandem.models.description import LayerSpec
from tests.tiny_models import tiny

SMALL = ("--layers", "2", "--hidden", "32", "--heads", "2", "--quick", "--rounds", "1", "--precision", "fp32")


def test_one_command_measures_everything_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "gpu", "--device", "cpu", *SMALL, "--variants", "fused-gelu", "--out", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    for words in (
        "figures say nothing about GPUs",
        "MFU in the model, 50 tokens",
        "through the engine",
        "peak: product",
    ):
        assert words in said
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    names = {series["name"]: series["summary"]["median"] for series in report["series"]}
    assert len(names) == len(report["series"]), "each has a name of its own"
    assert {"tandem, 8 x 50 tokens", "tandem engine, texts of 50 tokens"} <= names.keys()
    assert any(name.startswith("transformers, 8 a batch") for name in names)
    assert all(median > 0 for median in names.values())
    assert [check["name"] for check in report["checks"]] == [
        "fp32 rows against the fp32 reference",
        "transformers' rows against the fp32 reference",
    ]
    assert report["details"]["steady memory"]["pool allocations"] == 0
    assert (tmp_path / "gpu.svg").read_text(encoding="utf-8").startswith("<svg")


def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--device", "cuda:99", "--out", str(tmp_path)]) != 0
    said = capsys.readouterr().err
    assert "CUDA" in said
    assert not list(tmp_path.iterdir())


def test_an_unknown_variant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--variants", "faster"]) == 2
    assert "unknown variant faster" in capsys.readouterr().err


def test_every_option_has_a_flag_and_the_same_default() -> None:
    parser = argparse.ArgumentParser()
    bench_gpu.configure(parser)
    given = vars(parser.parse_args([]))
    given["variants"] = tuple(given["variants"].split(","))
    assert given == msgspec.structs.asdict(GpuBenchOptions())


def test_operations_are_counted_as_they_are_done() -> None:
    d = tiny((LayerSpec(),))
    matrices = 4 * 16 * 16 + 2 * 16 * 24
    assert flops(d, [10]) == 2 * matrices * 10 + 4 * 16 * 10 * 10
    assert flops(d, [10, 3]) == flops(d, [10]) + flops(d, [3])
    gated = msgspec.structs.replace(d, gated=True)
    assert flops(gated, [10]) - flops(d, [10]) == 2 * 16 * 24 * 10
    windowed = tiny((LayerSpec(window=2),))
    assert flops(d, [10]) - flops(windowed, [10]) == 4 * 16 * 10 * (10 - 5)
    causal = msgspec.structs.replace(d, causal=True)
    assert flops(d, [10]) - flops(causal, [10]) == 4 * 16 * (100 - 55)


def test_bert_base_costs_what_is_known_of_it() -> None:
    """85 million weights in its layers' matrices, two operations each."""
    d = tiny((LayerSpec(),) * 12, {"hidden": 768, "heads": 12, "intermediate": 3072})
    assert flops(d, [1]) == pytest.approx(2 * 85e6, rel=0.01)


def test_made_texts_have_the_length_that_is_asked(tmp_path: Path) -> None:
    subject = made_subject(GpuBenchOptions(layers=1, hidden=32, heads=2), tmp_path)
    for tokens in (16, 50):
        encoded = subject.tokenizer.encode(texts_of(subject, 20, tokens, seed=3), truncate=True).ids
        assert {len(ids) for ids in encoded} == {tokens}


def test_a_random_batch_is_flat_and_within_the_vocabulary() -> None:
    batch = random_batch(tiny(), [3, 5], 0)
    assert batch.ids.shape == (1, 8)
    assert batch.starts().tolist() == [0, 3]
    assert np.all((batch.ids >= 4) & (batch.ids < 50))
