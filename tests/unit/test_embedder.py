"""The library over the fake backend, from threads and event loops; and over a real engine with the real model."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest

from tandem import Embedder
from tandem.backends.proof import BOUNDS
from tandem.config import Settings
from tandem.errors import BackendFailed, ConfigError, InvalidInput, ModelNotFound, NotReady, TextTooLong
from tandem.models.folder import ModelFolder
from tests.engines import DIMS, POISON_ID, Device, alone, words, write_word_model

MANY = [words(i % 38, (i * 7) % 38, *range(i % 9)) for i in range(1300)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = write_word_model(tmp_path_factory.mktemp("model") / "tiny")
    store = tmp_path_factory.mktemp("home") / "models"
    return Settings(model=str(folder), backend="fake", store_dir=str(store), use_hub=False, use_package_index=False)


@pytest.fixture(scope="module")
def embedder(settings: Settings) -> Iterator[Embedder]:
    with Embedder(settings=settings) as embedder:
        yield embedder


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """The device of the next Embedder; its door is shut."""
    device = Device(shut=True)
    monkeypatch.setattr("tandem.fleet.FakeBackend", lambda: device)
    return device


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tandem-engine"]


def unit(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    row = alone(text)
    return np.asarray(row / np.linalg.norm(row), np.float32).reshape(DIMS)


def test_one_text_is_a_row_and_a_list_a_matrix(embedder: Embedder) -> None:
    one, two = embedder.embed(words(1)), embedder.embed([words(1), words(2, 3)])
    assert (one.shape, two.shape) == ((DIMS,), (2, DIMS))
    assert one.dtype == two.dtype == np.float32
    np.testing.assert_allclose(two, [unit(words(1)), unit(words(2, 3))], atol=1e-6)
    assert embedder.embed(()).shape == (0, DIMS)
    assert embedder.embed([], dimensions=3).shape == (0, 3)
    assert embedder.embed("").shape == (DIMS,)


def test_a_long_list_keeps_its_order(embedder: Embedder) -> None:
    rows = embedder.embed(MANY)
    np.testing.assert_allclose(rows, [unit(text) for text in MANY], atol=1e-5)
    assert rows.flags.owndata or rows.base is not None


def test_says_what_is_loaded(embedder: Embedder, settings: Settings) -> None:
    assert embedder.dimensions == embedder.model.dims == DIMS
    assert embedder.fingerprint == embedder.model.fingerprint
    assert settings.model in embedder.model.aliases


def test_options_reach_the_engine(embedder: Embedder) -> None:
    raw = embedder.embed(words(1, 2), normalize=False)
    np.testing.assert_allclose(raw, alone(words(1, 2)), atol=1e-5)
    np.testing.assert_allclose(embedder.embed(words(1, 2), normalize=False, dimensions=4), raw[:4], atol=1e-6)
    np.testing.assert_allclose(embedder.embed(words(2), prompt="w1 "), embedder.embed(words(1, 2)), atol=1e-6)
    with pytest.raises(TextTooLong):
        embedder.embed([words(1), words(*range(38))], truncate=False)


@pytest.mark.parametrize("bad", [None, 5, b"w1", ["w1", 5], [None], ["\ud800"], {"w1"}], ids=ascii)
def test_what_is_not_text_is_refused_and_harms_nothing(embedder: Embedder, bad: object) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        embedder.embed(bad)  # type: ignore[arg-type]
    assert embedder.embed(words(1)).shape == (DIMS,)


@pytest.mark.parametrize("dimensions", [0, -1, DIMS + 1, 1 << 50])
def test_dimensions_are_checked_before_memory_is_taken(embedder: Embedder, dimensions: int) -> None:
    with pytest.raises(InvalidInput, match="dimensions"):
        embedder.embed(MANY, dimensions=dimensions)


def test_one_bad_text_in_a_long_list_is_told_once(embedder: Embedder) -> None:
    with pytest.raises(InvalidInput, match="surrogate"):
        embedder.embed([*MANY, "\ud800"])
    assert embedder.embed(MANY[:3]).shape == (3, DIMS)


def test_many_threads_at_once(embedder: Embedder) -> None:
    expected = embedder.embed(MANY)

    def work(seed: int) -> bool:
        part = slice(seed * 31, seed * 31 + 700, 1 + seed % 3)
        return np.allclose(embedder.embed(MANY[part]), expected[part], atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(16)))


async def test_from_an_event_loop_many_at_once(embedder: Embedder) -> None:
    rows = await asyncio.gather(*(embedder.aembed([text]) for text in MANY[:100]))
    np.testing.assert_allclose(np.concatenate(rows), embedder.embed(MANY[:100]), atol=1e-5)
    with pytest.raises(InvalidInput):
        await embedder.aembed(["\ud800"])


def test_from_one_event_loop_after_another(embedder: Embedder) -> None:
    for _ in range(3):
        assert asyncio.run(embedder.aembed(words(1))).shape == (DIMS,)


def test_a_library_does_not_say_try_again_later(settings: Settings) -> None:
    narrow = msgspec.structs.replace(settings, max_concurrent_requests=1, max_queue_s=1e-9)
    with Embedder(settings=narrow) as embedder, ThreadPoolExecutor(4) as threads:
        assert all(rows.shape == (1300, DIMS) for rows in threads.map(embedder.embed, [MANY] * 4))


def test_what_is_given_wins_over_settings_and_what_is_not_does_not(settings: Settings) -> None:
    with Embedder(settings=msgspec.structs.replace(settings, precision="fp32", auto_truncate=False)) as embedder:
        assert embedder.model.aliases[0] == settings.model
        with pytest.raises(TextTooLong):
            embedder.embed(words(*range(38)))
    with pytest.raises(ModelNotFound, match="no/such"):
        Embedder("./no/such", settings=settings)


def test_settings_are_checked(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="precision"):
        Embedder(precision="fp8", settings=settings)
    with pytest.raises(ConfigError, match="unknown policy 'magic'"):
        Embedder(settings=msgspec.structs.replace(settings, policy="magic"))
    with pytest.raises(ConfigError, match="unknown backend 'tpu'"):
        Embedder(settings=msgspec.structs.replace(settings, backend="tpu"))


def test_closing_ends_the_thread_and_may_be_repeated(settings: Settings) -> None:
    before = engine_threads()
    embedder = Embedder(settings=settings)
    assert len(engine_threads()) == len(before) + 1
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: embedder.close(), range(4)))
    embedder.close()
    assert engine_threads() == before
    with pytest.raises(NotReady, match="closed"):
        embedder.embed("w1")
    with pytest.raises(NotReady, match="closed"):
        asyncio.run(embedder.aembed("w1"))


def test_closing_waits_for_calls_under_way(settings: Settings, device: Device) -> None:
    embedder = Embedder(settings=msgspec.structs.replace(settings, warm=False))
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(embedder.embed, MANY) for _ in range(3)]
        while embedder.engine.inflight < 3 * 3:
            threading.Event().wait(0.001)
        closing = threads.submit(embedder.close)
        device.door.set()
        closing.result(60)
        assert [call.result(60).shape for call in calls] == [(1300, DIMS)] * 3
    assert device.closed == 1


async def test_a_cancelled_call_drops_what_waits(settings: Settings, device: Device) -> None:
    async with Embedder(settings=msgspec.structs.replace(settings, warm=False, cache="off")) as embedder:
        first = asyncio.create_task(embedder.aembed(words(1)))
        await device.arrival()
        leaves = asyncio.create_task(embedder.aembed(MANY))
        stays = asyncio.create_task(embedder.aembed(words(2)))
        await until(lambda: embedder.engine.backlog().queued_texts > 1000)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        await until(lambda: embedder.engine.backlog().queued_texts <= 1)
        device.door.set()
        assert (await first).shape == (await stays).shape == (DIMS,)
    assert len(device.computed) < 200, "what a device already had is computed, 1,300 texts are not"


async def until(state: Callable[[], bool]) -> None:
    """Give other threads their turn until ``state`` holds."""
    for _ in range(10_000):
        if state():
            return
        await asyncio.to_thread(threading.Event().wait, 0.001)
    pytest.fail("it never came to that")


def test_a_start_that_fails_leaves_nothing_behind(settings: Settings, device: Device) -> None:
    def broken() -> None:
        raise OSError("no such device")

    device.fault = broken
    device.door.set()
    before = engine_threads()
    with pytest.raises(BackendFailed, match="no such device"):
        Embedder(settings=settings)
    assert engine_threads() == before
    assert device.closed == 1


def test_a_poisoned_text_fails_its_own_call_alone(settings: Settings, device: Device) -> None:
    device.door.set()
    with Embedder(settings=msgspec.structs.replace(settings, warm=False)) as embedder, ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(embedder.embed, [words(i), words(i + 1)]) for i in range(20)]
        bad = threads.submit(embedder.embed, [words(1), "poison"])
        assert all(call.result(60).shape == (2, DIMS) for call in calls)
        with pytest.raises(BackendFailed, match=f"token {POISON_ID} is poison"):
            bad.result(60)


@pytest.fixture(scope="module")
def real(minilm_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    store = tmp_path_factory.mktemp("home") / "models"
    with Embedder(str(minilm_folder.path), settings=Settings(store_dir=str(store))) as embedder:
        yield embedder


def test_a_vector_is_the_same_alone_and_in_company(real: Embedder) -> None:
    sentence = "The lighthouse keeper writes down the weather every evening, and the ferry does not run in winter. "
    texts = [(sentence * 20)[: 7 * n + 1] for n in range(60)] + ["", "a", "日本語のテキスト", sentence * 200]
    company = real.embed(texts)
    assert company.shape == (64, 384)
    np.testing.assert_allclose(np.linalg.norm(company, axis=1), 1, atol=1e-5)
    alone_rows = np.stack([real.embed(text) for text in texts])
    turned = real.embed(texts[::-1])[::-1]
    bound = BOUNDS[real.model.tier]
    assert (company * alone_rows).sum(axis=1).min() >= bound
    assert (company * turned).sum(axis=1).min() >= bound


def test_meaning_is_near_meaning(real: Embedder) -> None:
    question, answer, other = real.embed(
        ["How cold is the sea in winter?", "The water is 4 degrees in January.", "My cat sleeps on the keyboard."]
    )
    assert question @ answer > question @ other + 0.2


def test_many_threads_on_the_real_engine(real: Embedder) -> None:
    texts = [f"{'word ' * (i % 40)}number {i}" for i in range(200)]
    expected = real.embed(texts)
    bound = BOUNDS[real.model.tier]

    def work(seed: int) -> bool:
        return bool(((real.embed(texts[seed::5]) * expected[seed::5]).sum(axis=1) >= bound).all())

    with ThreadPoolExecutor(5) as threads:
        assert all(threads.map(work, list(range(5)) * 2))


@pytest.mark.parametrize("texts", [None, 5, b"bytes", {"a": 1}, {"a"}, (x for x in "ab")])
def test_what_is_no_list_of_strings_is_named(embedder: Embedder, texts: Any) -> None:
    with pytest.raises(InvalidInput, match=f"not {type(texts).__name__}"):
        embedder.embed(texts)


def test_an_error_names_the_text_of_the_whole_list(embedder: Embedder) -> None:
    texts: list[Any] = [words(1)] * 1300
    texts[1200] = None
    with pytest.raises(InvalidInput, match="input 1200"):
        embedder.embed(texts)


def test_a_forked_child_is_told_instead_of_waiting_for_ever(embedder: Embedder) -> None:
    embedder.embed("before")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            embedder.embed("after")
        except NotReady as error:
            os.write(writing, str(error).encode())
        embedder.close()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert "forked" in answer.read()
    assert os.waitpid(child, 0)[1] == 0
    assert embedder.embed("still here").shape == (embedder.dimensions,)
