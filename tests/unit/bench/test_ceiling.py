from __future__ import annotations

import numpy as np
import pytest

from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.bench.ceiling import Ceiling, cut_batches, waste
from tandem.config import Settings
from tandem.models.folder import ModelFolder
from tandem.models.loaded import LoadedModel, load_model
from tandem.types import TokenBatch, TokenIds


@pytest.fixture(scope="module")
def model(minilm_folder: ModelFolder) -> LoadedModel:
    return load_model(minilm_folder)


def backend(streams: int) -> FakeBackend:
    return FakeBackend(FakeOptions(streams=streams))


def lists(count: int, size: int) -> list[list[TokenIds]]:
    rng = np.random.default_rng(0)
    return [[[101] * int(n) for n in rng.integers(2, 200, size)] for _ in range(count)]


@pytest.mark.parametrize(("callers", "streams"), [(1, 1), (8, 1), (8, 2), (100, 2)])
def test_every_text_is_in_exactly_one_batch(model: LoadedModel, callers: int, streams: int) -> None:
    requests = lists(20, 32)
    batches = cut_batches(Settings(), model, requests, callers, backend(streams))
    lengths = sorted(int(n) for batch in batches for n in batch.lengths)
    assert lengths == sorted(len(ids) for request in requests for ids in request)


def test_one_caller_with_one_text_is_computed_alone(model: LoadedModel) -> None:
    batches = cut_batches(Settings(), model, lists(5, 1), 1, backend(2))
    assert [len(batch.lengths) for batch in batches] == [1] * 5


def test_more_callers_make_a_wider_window_and_less_padding(model: LoadedModel) -> None:
    alone, together = (waste(cut_batches(Settings(), model, lists(20, 32), callers, backend(2))) for callers in (1, 8))
    assert 0 < together < alone


def test_waste_is_the_share_of_padding() -> None:
    batch = TokenBatch(ids=np.zeros((2, 10), np.int32), lengths=np.array([10, 5], np.int32))
    assert waste([batch]) == 0.25


def test_batches_run_and_are_timed_one_by_one(model: LoadedModel) -> None:
    ceiling = Ceiling(FakeBackend())
    batches = cut_batches(Settings(), model, lists(2, 4), 1, backend(1))
    try:
        assert ceiling.seconds(batches) > 0
        assert len(ceiling.each(batches)) == len(batches)
    finally:
        ceiling.close()
