"""Caches on a server that is full, and caches that are cleared."""

from __future__ import annotations

import pytest

from tandem.admission import EngineOptions
from tandem.engine import Engine
from tandem.errors import InvalidInput, Overloaded, ServiceError
from tandem.types import EmbedRequest, Source, TokenIds
from tests.cached_engines import Shelf, cached_engine, known, settled, sources
from tests.engines import Device, asking, begin, rows, words

L1, L2, MISS = Source.L1, Source.L2, Source.MISS


@pytest.mark.parametrize("by_ids", [False, True])
async def test_a_full_server_refuses_nobody_what_memory_has(device: Device, by_ids: bool) -> None:
    engine = cached_engine(device, options=EngineOptions(max_concurrent_requests=1))
    await engine.embed(asking(words(1, 2), words(3)))
    ids: list[TokenIds] = [row[1:-1] for row in device.computed]
    wanted = EmbedRequest(inputs=ids) if by_ids else asking(words(1, 2), words(3))
    device.door.clear()
    blocking = await begin(engine, asking(words(4)))
    assert known(engine, wanted)
    assert sources(await engine.embed(wanted)) == [L1, L1]
    with pytest.raises(Overloaded):
        await engine.embed(EmbedRequest(inputs=[[7, 8, 9]]) if by_ids else asking(words(5)))
    with pytest.raises(InvalidInput, match="input 1 is empty"):
        await engine.embed(EmbedRequest(inputs=[ids[0], []]))
    device.door.set()
    await blocking
    await engine.close()


async def test_very_many_ids_are_framed_off_the_event_loop(engine: Engine, device: Device) -> None:
    wanted = EmbedRequest(inputs=[[7 + i % 5 for i in range(200)] for _ in range(50)])
    first = await engine.embed(wanted)
    assert set(sources(first)) == {MISS}
    assert not known(engine, wanted)
    again = await engine.embed(wanted)
    assert set(sources(again)) == {L1}
    assert rows(first).tobytes() == rows(again).tobytes()
    assert len(device.computed) == 1


async def test_what_was_cleared_is_computed_again(device: Device) -> None:
    shelf = Shelf()
    engine = cached_engine(device, store=shelf)
    await engine.embed(asking(words(1)))
    await settled()
    assert engine.recall is not None
    await engine.embed(asking(words(2)))
    await engine.recall.clear()
    assert not shelf.held, "not even what was computed just now"
    assert sources(await engine.embed(asking(words(1), words(2)))) == [MISS, MISS]
    await engine.close()


async def test_who_clears_hears_of_a_second_level_that_was_not(device: Device) -> None:
    shelf = Shelf()
    engine = cached_engine(device, store=shelf)
    await engine.embed(asking(words(1)))
    shelf.can_clear = False
    assert engine.recall is not None
    with pytest.raises(ServiceError, match="memory is cleared; the second level is not, as it can not be reached"):
        await engine.recall.clear()
    assert not len(engine.recall.cache.l1)
    assert sources(await engine.embed(asking(words(1)))) == [L2]
    await engine.close()
