"""Requests through the caches, over a real tokenizer, scheduler and worker, and the fake backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tandem.caching.base import Entry, Key
from tandem.caching.keys import Context
from tandem.caching.near_duplicate import Candidate, Look, Query
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.errors import BackendFailed, InvalidInput, TextTooLong
from tandem.types import CacheMode, Direction, EmbedRequest, Output, Priority, Source, TokenIds
from tests.cached_engines import Shelf, cached_engine, known, settled, sources
from tests.engines import Device, alone, asking, begin, rows, words

L1, L2, MISS = Source.L1, Source.L2, Source.MISS


async def test_a_text_is_computed_once_and_comes_back_bit_for_bit(engine: Engine, device: Device) -> None:
    first = await engine.embed(asking(words(1, 2)))
    again = await engine.embed(asking(words(1, 2)))
    assert sources(first) == [MISS]
    assert sources(again) == [L1]
    assert rows(first).tobytes() == rows(again).tobytes()
    assert first.token_counts == again.token_counts == [4]
    assert len(device.computed) == 1


async def test_what_memory_has_needs_no_wait(engine: Engine) -> None:
    await engine.embed(asking(words(1), words(2)))
    assert known(engine, asking(words(2), words(1), words(2)))


async def test_doubles_in_a_list_are_computed_once(engine: Engine, device: Device) -> None:
    result = await engine.embed(asking(*[words(1), words(2)] * 5))
    assert len(device.computed) == 2
    np.testing.assert_allclose(rows(result), np.stack([alone(words(1)), alone(words(2))] * 5), atol=1e-6)


async def test_a_list_asks_the_model_for_what_is_new_alone(engine: Engine, device: Device) -> None:
    await engine.embed(asking(words(1), words(2)))
    result = await engine.embed(asking(words(3), words(2), words(4), words(1)))
    assert sources(result) == [MISS, L1, MISS, L1]
    assert len(device.computed) == 4
    np.testing.assert_allclose(rows(result), np.stack([alone(words(n)) for n in (3, 2, 4, 1)]), atol=1e-6)


async def test_one_entry_serves_every_dimension_and_length(engine: Engine, device: Device) -> None:
    full = await engine.embed(asking(words(1), normalize=False))
    short = await engine.embed(asking(words(1), dimensions=5, normalize=True))
    assert sources(short) == [L1]
    wanted = rows(full)[0, :5] / np.linalg.norm(rows(full)[0, :5])
    np.testing.assert_allclose(rows(short)[0], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "w9 "},
        {"prompt_name": "query"},
        {"tenant": "somebody else"},
        {"truncation_direction": Direction.LEFT},
        {"truncate": False},
        {"cache": CacheMode.OFF},
        {"output": Output.TOKENS},
    ],
    ids=str,
)
async def test_what_changes_a_row_or_whose_it_is_does_not_find_it_by_text(
    engine: Engine, other: dict[str, object]
) -> None:
    request = EmbedRequest(inputs=[words(1)], **other)  # type: ignore[arg-type]
    await engine.embed(asking(words(1)))
    assert not known(engine, request)
    await engine.embed(request)


async def test_texts_with_the_same_tokens_meet_without_loss(engine: Engine, device: Device) -> None:
    first = await engine.embed(asking(words(1, 2)))
    spaced = await engine.embed(asking("  w1 \n w2 "))
    assert sources(spaced) == [L1]
    assert rows(first).tobytes() == rows(spaced).tobytes()
    # Known by now, it needs no tokenizer either.
    assert known(engine, asking("  w1 \n w2 "))
    assert len(device.computed) == 1


async def test_texts_that_are_cut_to_the_same_tokens_meet(engine: Engine, device: Device) -> None:
    stem = words(*range(80))
    first = await engine.embed(asking(stem + " w81"))
    other = await engine.embed(asking(stem + " w82 w83"))
    assert sources(other) == [L1]
    assert rows(first).tobytes() == rows(other).tobytes()


async def test_ids_and_their_text_share_a_row(engine: Engine, device: Device) -> None:
    first = await engine.embed(asking(words(1, 2)))
    by_ids = await engine.embed(EmbedRequest(inputs=[device.computed[0][1:-1]]))
    assert sources(by_ids) == [L1]
    assert rows(first).tobytes() == rows(by_ids).tobytes()
    alone_first = await engine.embed(EmbedRequest(inputs=[[7, 8, 9], [7, 8, 9]]))
    assert sources(alone_first) == [MISS, MISS]
    assert len(device.computed) == 2


async def test_tokens_of_another_tenant_answer_nobody(engine: Engine, device: Device) -> None:
    await engine.embed(asking(words(1), tenant="a"))
    assert sources(await engine.embed(asking(words(1), tenant="b"))) == [MISS]
    assert sources(await engine.embed(asking(words(1) + " ", tenant="b"))) == [L1]


async def test_callers_at_once_share_one_flight(device: Device, engine: Engine) -> None:
    device.door.clear()
    tasks = [await begin(engine, asking(words(1))) for _ in range(8)]
    tasks.append(await begin(engine, asking(words(2), words(1), " " + words(1))))
    device.door.set()
    results = await asyncio.gather(*tasks)
    assert len(device.computed) == 2
    for result in results[:-1]:
        assert rows(result)[0].tobytes() == rows(results[-1])[1].tobytes() == rows(results[-1])[2].tobytes()


async def test_who_leaves_takes_no_others_answer_along(device: Device, engine: Engine) -> None:
    device.door.clear()
    await begin(engine, asking(words(9)))
    await device.arrival()
    leaves = await begin(engine, asking(words(1), words(2)))
    stays = [await begin(engine, asking(words(1))) for _ in range(3)]
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    device.door.set()
    for result in await asyncio.gather(*stays):
        np.testing.assert_allclose(rows(result)[0], alone(words(1)), atol=1e-6)
    assert [len(ids) for ids in device.computed].count(3) == 2, "w9 and w1, and not w2"
    assert not engine.recall or not len(engine.recall.flights)


async def test_who_waits_for_anothers_text_leaves_it_alone(device: Device, engine: Engine) -> None:
    device.door.clear()
    first = await begin(engine, asking(words(1)))
    second = await begin(engine, asking(words(1)))
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    device.door.set()
    assert sources(await first) == [MISS]


async def test_a_text_of_a_long_list_is_there_when_its_own_batch_ends(device: Device, engine: Engine) -> None:
    """A caller who waits for one text of a list does not wait for the list, and makes its turn come sooner."""
    device.door.clear()
    await begin(engine, asking(words(9)))
    await device.arrival()
    bulk = await begin(
        engine, asking(*(words(i, j) for i in range(80) for j in range(80)), priority=Priority.BACKGROUND)
    )
    question = await begin(engine, asking(words(79, 79), priority=Priority.CRITICAL))
    device.door.set()
    result = await question
    assert not bulk.done()
    np.testing.assert_allclose(rows(result)[0], alone(words(79, 79)), atol=1e-6)
    bulk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bulk


async def test_a_failure_is_not_kept_and_is_each_callers_own(device: Device, engine: Engine) -> None:
    tasks = [await begin(engine, asking("poison")), await begin(engine, asking("poison", words(1)))]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, BackendFailed) for one in found)
    assert not known(engine, asking("poison"))
    result = await engine.embed(asking(words(1)))
    np.testing.assert_allclose(rows(result)[0], alone(words(1)), atol=1e-6)


async def test_errors_count_over_the_whole_list(engine: Engine) -> None:
    await engine.embed(asking(words(1), words(2)))
    too_long = words(*range(80))
    with pytest.raises(TextTooLong, match="input 3"):
        await engine.embed(asking(words(1), words(2), words(3), too_long, truncate=False))
    with pytest.raises(InvalidInput, match="input 2"):
        await engine.embed(asking(words(1), words(2), "\ud800"))
    with pytest.raises(InvalidInput, match="input 1"):
        await engine.embed(EmbedRequest(inputs=[words(1), 7]))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no input"):
        await engine.embed(EmbedRequest(inputs=[]))


async def test_the_second_level_fills_the_first(device: Device) -> None:
    shelf = Shelf()
    first = cached_engine(device, store=shelf)
    computed = await first.embed(asking(words(1), words(2)))
    await settled()
    await first.close()
    assert len(shelf.held) == 2
    assert shelf.closed == 1
    second = cached_engine(device, store=shelf)
    found = await second.embed(asking(words(2), words(3), words(1)))
    assert sources(found) == [L2, MISS, L2]
    assert rows(found)[2].tobytes() == rows(computed)[0].tobytes()
    assert sources(await second.embed(asking(words(1)))) == [L1]
    await second.close()


async def test_what_a_caller_does_to_his_row_is_nobody_elses_business(device: Device) -> None:
    shelf = Shelf()
    first = cached_engine(device, store=shelf)
    computed = rows(await first.embed(asking(words(1), normalize=False))).copy()
    await first.close()
    engine = cached_engine(device, store=shelf)
    for source in (L2, L1):
        found = await engine.embed(asking(words(1), normalize=False))
        assert sources(found) == [source]
        assert rows(found).tobytes() == computed.tobytes()
        rows(found)[:] = 0.0
    await engine.close()
    assert engine.recall is not None
    (kept,) = engine.recall.cache.now(engine.recall.text_keys(asking(words(1))))
    assert kept is not None
    assert kept.row.tobytes() == computed.tobytes()


async def test_rows_of_one_flight_are_each_callers_own(device: Device, engine: Engine) -> None:
    device.door.clear()
    tasks = [await begin(engine, asking(words(1), normalize=False, dimensions=wanted)) for wanted in (None, None, 5)]
    device.door.set()
    mine, other, short = await asyncio.gather(*tasks)
    computed = rows(other).copy()
    rows(mine)[:] = 0.0
    rows(short)[:] = 0.0
    assert rows(other).tobytes() == computed.tobytes()
    assert rows(await engine.embed(asking(words(1), normalize=False))).tobytes() == computed.tobytes()


async def test_shares_are_counted_by_texts_and_by_tokens(engine: Engine) -> None:
    await engine.embed(asking(words(1), words(1, 2, 3)))
    await engine.embed(asking(words(1, 2, 3)))
    assert engine.recall is not None
    report = engine.recall.cache.tally.report()
    assert report["l1"].texts == 1
    assert report["l1"].tokens == 5
    assert report["miss"].tokens == 8
    assert report["l1"].token_share == pytest.approx(5 / 13)


async def test_no_memory_still_merges_what_is_under_way(device: Device) -> None:
    engine = cached_engine(device, cache_bytes=0)
    device.door.clear()
    tasks = [await begin(engine, asking(words(1))) for _ in range(4)]
    device.door.set()
    await asyncio.gather(*tasks)
    assert len(device.computed) == 1
    await engine.close()


class Near:
    """What a request may be answered by, decided by the test: the row of ``like``, with a similarity of 0.97."""

    def __init__(self, engine: Engine, like: str) -> None:
        assert engine.recall is not None
        self._recall = engine.recall
        (self.key,) = engine.recall.text_keys(asking(like))
        self.learned: list[Key] = []

    def look_up(
        self, context: Context, texts: Sequence[str | None], ids: Sequence[TokenIds], *, wanted: bool
    ) -> list[tuple[Query, Look]]:
        serve = Candidate(self.key, 0.97)
        return [
            (Query(text, row), Look(serve, serve, False, True, None, None))
            for text, row in zip(texts, ids, strict=True)
        ]

    def served(self, look: Look) -> tuple[Entry, float] | None:
        entry = self._recall.cache.one(self.key)
        return None if entry is None else (entry, 0.97)

    def learn(self, query: Query, look: Look, key: Key, row: object) -> None:
        self.learned.append(key)


async def test_a_near_duplicate_answers_who_asks_for_one_and_nobody_else(engine: Engine, device: Device) -> None:
    first = await engine.embed(asking(words(1, 2)))
    assert engine.recall is not None
    near = Near(engine, words(1, 2))
    engine.recall.near = near  # type: ignore[assignment]
    served = await engine.embed(asking(words(1, 2, 3), words(1, 2), cache=CacheMode.NEAR))
    assert sources(served) == [Source.NEAR, L1]
    assert served.similarity == 0.97
    assert rows(served)[0].tobytes() == rows(first)[0].tobytes()
    assert served.token_counts == [5, 4]
    assert not near.learned, "what is not the model's own teaches nothing"
    exact = await engine.embed(asking(words(1, 2, 3)))
    assert sources(exact) == [MISS]
    assert exact.similarity is None
    np.testing.assert_allclose(rows(exact)[0], alone(words(1, 2, 3)), atol=1e-6)
    assert len(near.learned) == 1
    assert sources(await engine.embed(asking(words(1, 2, 3), cache=CacheMode.NEAR))) == [L1]


async def test_doubles_by_tokens_get_near_duplicates_and_no_flight_waits_for_itself(engine: Engine) -> None:
    await engine.embed(asking(words(1, 2)))
    assert engine.recall is not None
    engine.recall.near = Near(engine, words(1, 2))  # type: ignore[assignment]
    doubles = asking(words(3, 4), "  " + words(3, 4), words(3, 4), cache=CacheMode.NEAR)
    async with asyncio.timeout(10):
        assert sources(await engine.embed(doubles)) == [Source.NEAR] * 3
    assert len(engine.recall.flights) == 0


async def test_a_bug_in_what_hears_of_rows_costs_its_batch_alone(engine: Engine, device: Device) -> None:
    assert engine.recall is not None
    near = Near(engine, words(1, 2))

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    near.learn = broken  # type: ignore[method-assign, assignment]
    engine.recall.near = near  # type: ignore[assignment]
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    async with asyncio.timeout(10):
        with pytest.raises(BackendFailed, match="a bug"):
            await engine.embed(asking(words(1, 2, 3)))
        engine.recall.near = None
        await engine.embed(asking(words(4)))
    assert len(unheard) == 1


async def test_who_joined_the_flight_of_a_near_duplicate_gets_his_own_row(engine: Engine, device: Device) -> None:
    await engine.embed(asking(words(1, 2)))
    assert engine.recall is not None
    engine.recall.near = Near(engine, words(1, 2))  # type: ignore[assignment]
    text = words(*range(50)) * 20  # long enough to be tokenized in a thread
    near = await begin(engine, asking(text, cache=CacheMode.NEAR))
    exact = await begin(engine, asking(text))
    assert sources(await near) == [Source.NEAR]
    assert sources(await exact) == [MISS]
    np.testing.assert_allclose(rows(exact.result())[0], alone(text), atol=1e-6)


def test_a_wrong_second_level_is_told(tmp_path: Path) -> None:
    from tandem.caches import build_store
    from tandem.caching.keys import KeySpace
    from tandem.errors import ConfigError

    space = KeySpace(model="m", tier="fp32")
    with pytest.raises(ConfigError, match="redis://"):
        build_store(Settings(cache_l2="localhost:6379"), space, 8, SystemClock())
