from __future__ import annotations

import msgspec
import pytest

from tandem.memory.estimate import EncoderShape, Footprint, PeakModel, guess

MINILM = EncoderShape(hidden=384, heads=12, intermediate=1536, dims=384)
KIB = 1024
# (rows, width, peak in KiB) of MiniLM, two threads, as `measure.peak_bytes` gave them on a Zen 5 EPYC.
OPENVINO = [(16, 32, 11072), (2, 256, 11268), (32, 32, 21860), (4, 256, 22008)]
OPENVINO_LATER = [(64, 32, 43328), (16, 128, 43440), (8, 256, 43576), (16, 256, 86676)]
ONNXRUNTIME = [(16, 32, 23504), (2, 256, 36200), (32, 32, 48104), (4, 256, 73292)]
ONNXRUNTIME_LATER = [(64, 32, 96608), (16, 128, 117696), (8, 256, 149624), (64, 64, 208096), (16, 256, 293684)]


def fitted(peaks: list[tuple[int, int, int]]) -> PeakModel:
    model = PeakModel(guess(MINILM))
    for rows, width, kib in peaks:
        model.observe(rows * width, rows * width * width, rows, kib * KIB)
    return model


def error(footprint: Footprint, rows: int, width: int, kib: int) -> float:
    return footprint.peak_bytes(rows * width, rows * width * width, rows) / (kib * KIB) - 1


def test_the_guess_follows_the_shape() -> None:
    plain, gated = guess(MINILM), guess(EncoderShape(hidden=384, heads=12, intermediate=1536, dims=384, gated=True))
    assert plain.per_token_bytes == 4 * (8 * 384 + 3 * 1536)
    assert gated.per_token_bytes - plain.per_token_bytes == 4 * 1536
    assert plain.per_square_bytes == 96
    half = guess(EncoderShape(hidden=384, heads=12, intermediate=1536, dims=384, element_bytes=2))
    assert half.per_token_bytes == plain.per_token_bytes / 2
    flash = guess(EncoderShape(hidden=384, heads=12, intermediate=1536, dims=384, scores=False))
    assert flash.per_square_bytes == 0


def test_before_it_is_fitted_the_guess_has_the_right_order() -> None:
    for rows, width, kib in [*OPENVINO_LATER, *ONNXRUNTIME_LATER]:
        assert 0.7 < 1 + error(guess(MINILM), rows, width, kib) < 2.6


@pytest.mark.parametrize(
    ("warm_up", "later"),
    [(OPENVINO, OPENVINO_LATER), (ONNXRUNTIME, ONNXRUNTIME_LATER)],
    ids=["openvino", "onnxruntime"],
)
def test_fitted_on_small_batches_it_predicts_large_ones_within_a_tenth(
    warm_up: list[tuple[int, int, int]], later: list[tuple[int, int, int]]
) -> None:
    model = fitted(warm_up)
    assert model.measured == len(warm_up)
    for rows, width, kib in later:
        assert abs(error(model.footprint, rows, width, kib)) < 0.1, (rows, width, model.footprint)


def test_no_coefficient_falls_below_zero() -> None:
    model = PeakModel(guess(MINILM))
    for tokens, width in [(100, 10), (1000, 10), (100, 100), (1000, 200)]:
        # Wider rows cost less here, which no engine does and noise may show.
        model.observe(tokens, tokens * width, 10, 5000 * tokens / (1 + width / 100))
    assert min(msgspec.structs.astuple(model.footprint)) >= 0
    assert model.footprint.peak_bytes(1000, 100_000, 10) == pytest.approx(2_500_000, rel=0.5)


def test_what_measurements_do_not_show_stays_as_guessed() -> None:
    prior = guess(MINILM)
    model = PeakModel(prior)
    model.observe(512, 512 * 64, 16, prior.peak_bytes(512, 512 * 64, 16))
    assert model.footprint.peak_bytes(4096, 4096 * 512, 16) == pytest.approx(prior.peak_bytes(4096, 4096 * 512, 16))


def test_a_peak_that_shows_nothing_teaches_nothing() -> None:
    model = PeakModel(guess(MINILM))
    model.observe(16, 256, 1, 0)
    assert (model.measured, model.footprint) == (0, guess(MINILM))
