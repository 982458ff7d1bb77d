"""What every backend must do, the fake one included, on a tiny model with random weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.backends import BACKENDS, Backend, BackendOptions
from tandem.backends.cpu import cpu_info
from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.backends.graph_model import graph_model
from tandem.backends.proof import BOUNDS, smallest_cosine
from tandem.models.folder import ModelFolder
from tandem.models.loaded import LoadedModel, load_model
from tandem.types import Output, Tier, TokenBatch
from tests.engines import batch_of, write_word_model

STREAMS = 2
LONGEST = 20
RNG = np.random.default_rng(11)
TEXTS = [[2, *(int(i) for i in RNG.integers(6, 50, n)), 3] for n in (1, 16, 4, 4, 18, 0, 9)]

Make = Callable[[LoadedModel], Backend]
WAYS: dict[str, Make] = {"fake": lambda model: FakeBackend(FakeOptions(streams=STREAMS))}


def _engine(name: str, tier: Tier) -> Make:
    options = BackendOptions(tier=tier, threads=STREAMS, streams=STREAMS)
    return lambda model: BACKENDS.get(name)(graph_model(model), options)


WAYS |= {name: _engine(name, Tier.FP32) for name in BACKENDS}
WAYS["openvino-bf16"] = _engine("openvino", Tier.BF16)
WAYS["torch-bf16"] = _engine("torch", Tier.BF16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = write_word_model(tmp_path_factory.mktemp("model") / "tiny")
    return load_model(ModelFolder(folder, "acme/tiny", "folder"))


@pytest.fixture(scope="module", params=WAYS)
def backend(request: pytest.FixtureRequest, model: LoadedModel) -> Iterator[Backend]:
    if request.param.endswith("bf16") and not cpu_info().native_bf16:
        pytest.skip("this CPU does not compute bf16 natively, and Tandem would not choose it")
    backend = WAYS[request.param](model)
    yield backend
    backend.close()


def assert_same_rows(found: NDArray[np.float32], expected: NDArray[np.float32], tier: Tier) -> None:
    assert smallest_cosine(found, expected) >= BOUNDS[tier]


def test_says_what_it_is(backend: Backend, model: LoadedModel) -> None:
    assert backend.name in (*BACKENDS, "fake")
    assert isinstance(backend.tier, Tier)
    assert (backend.dims, backend.hidden) == (model.description.dims, model.description.hidden)
    assert backend.streams == STREAMS


def test_gives_a_row_a_text(backend: Backend) -> None:
    rows = backend.run(batch_of(TEXTS))
    assert rows.shape == (len(TEXTS), backend.dims)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert len(np.unique(rows.round(3), axis=0)) == len(TEXTS), "different texts, different rows"


def test_gives_a_row_a_token(backend: Backend) -> None:
    rows = backend.run(batch_of(TEXTS, output=Output.TOKENS))
    assert rows.shape == (len(TEXTS), LONGEST, backend.hidden)
    assert rows.dtype == np.float32
    assert all(np.isfinite(rows[i, : len(text)]).all() for i, text in enumerate(TEXTS))


def test_is_what_the_reference_says(backend: Backend, model: LoadedModel) -> None:
    if backend.name == "fake":
        pytest.skip("no model, no reference")
    batch = batch_of(TEXTS)
    assert_same_rows(backend.run(batch), model.reference(batch), backend.tier)


def test_a_row_does_not_depend_on_its_company(backend: Backend) -> None:
    together = backend.run(batch_of(TEXTS))
    turned = backend.run(batch_of(TEXTS[::-1], width=LONGEST))[::-1]
    alone = np.concatenate([backend.run(batch_of([text])) for text in TEXTS])
    padded = np.concatenate([backend.run(batch_of([text], width=LONGEST)) for text in TEXTS])
    for found in (turned, alone, padded):
        assert_same_rows(found, together, backend.tier)


def test_padding_means_nothing(backend: Backend) -> None:
    clean = batch_of(TEXTS)
    dirty = clean.ids.copy()
    dirty[np.arange(LONGEST) >= clean.lengths[:, None]] = 17
    rows = backend.run(TokenBatch(ids=dirty, lengths=clean.lengths))
    assert_same_rows(rows, backend.run(clean), backend.tier)


def test_the_same_batch_gives_the_same_bits(backend: Backend) -> None:
    first = backend.run(batch_of(TEXTS))
    for _ in range(3):
        np.testing.assert_array_equal(backend.run(batch_of(TEXTS)), first)


def test_a_result_is_the_callers_own(backend: Backend) -> None:
    batch = batch_of(TEXTS)
    first = backend.run(batch)
    kept = first.copy()
    backend.run(batch_of([[2, 40, 41, 3]] * len(TEXTS), width=LONGEST))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    assert backend.run(batch).any()


def test_a_batch_is_not_changed(backend: Backend) -> None:
    batch = batch_of(TEXTS)
    ids, lengths = batch.ids.copy(), batch.lengths.copy()
    backend.run(batch)
    np.testing.assert_array_equal(batch.ids, ids)
    np.testing.assert_array_equal(batch.lengths, lengths)


def test_streams_run_side_by_side_and_do_not_mix(backend: Backend) -> None:
    parts = [TEXTS[i::3] for i in range(3)]
    expected = [backend.run(batch_of(part)) for part in parts]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(30):
            index = (seed + step) % len(parts)
            if smallest_cosine(backend.run(batch_of(parts[index])), expected[index]) < BOUNDS[backend.tier]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2 * STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_both_outputs_may_alternate(backend: Backend) -> None:
    pooled = backend.run(batch_of(TEXTS))
    for _ in range(3):
        backend.run(batch_of(TEXTS, output=Output.TOKENS))
        np.testing.assert_array_equal(backend.run(batch_of(TEXTS)), pooled)


@pytest.mark.parametrize("way", WAYS)
def test_closing_may_be_repeated(way: str, model: LoadedModel) -> None:
    if way.endswith("bf16") and not cpu_info().native_bf16:
        pytest.skip("this CPU does not compute bf16 natively")
    backend = WAYS[way](model)
    backend.run(batch_of(TEXTS[:1]))
    backend.close()
    backend.close()
