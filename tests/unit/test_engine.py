"""The engine over a real tokenizer, scheduler and worker, and the fake backend: what a caller sees."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from tandem.admission import Admission, EngineOptions
from tandem.clock import ManualClock
from tandem.engine import Engine
from tandem.errors import (
    BackendFailed,
    DeadlineExceeded,
    Draining,
    InvalidInput,
    Overloaded,
    TandemError,
)
from tandem.types import EmbedResult, Output, Priority
from tests.engines import (
    DIMS,
    FAKE,
    Device,
    alone,
    asking,
    begin,
    make_engine,
    model_info,
    rows,
    text_tokenizer,
    until,
    words,
)


async def occupied(device: Device, engine: Engine) -> list[asyncio.Task[EmbedResult]]:
    """A request that fills the device, so that what comes next waits in the queue."""
    task = await begin(engine, asking(words(80)))
    await device.arrival()
    return [task]


async def test_a_row_a_text_in_the_callers_order() -> None:
    engine = make_engine(Device())
    texts = [words(1), words(2, 3, 4, 5), "", words(*range(40)), words(1)]
    result = await engine.embed(asking(*texts))
    assert rows(result).shape == (5, DIMS)
    assert rows(result).dtype == np.float32
    np.testing.assert_allclose(rows(result), np.stack([alone(text) for text in texts]), atol=1e-5)
    assert result.token_counts == [3, 6, 2, 42, 3]
    assert result.times.total_s >= result.times.tokenize_s >= 0
    assert result.times.total_s >= result.times.infer_s > 0
    await engine.close()


async def test_many_callers_at_once_each_get_their_own() -> None:
    engine = make_engine(Device(msgspec.structs.replace(FAKE, streams=3)))
    texts = [[words(i % 90, j % 90, *range(i % 40)) for j in range(i % 7 + 1)] for i in range(120)]
    results = await asyncio.gather(*(engine.embed(asking(*one)) for one in texts))
    for one, result in zip(texts, results, strict=True):
        np.testing.assert_allclose(rows(result), np.stack([alone(text) for text in one]), atol=1e-4)
    assert engine.inflight == 0
    assert engine.backlog().queued_texts == 0
    await engine.close()


async def test_an_idle_device_does_not_wait_for_company() -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    task = await begin(engine, asking(words(1)))
    await device.arrival()
    assert len(device.batches) == 1
    device.door.set()
    await task
    await engine.close()


async def test_a_caller_who_leaves_is_dropped_before_compute() -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    before = await occupied(device, engine)
    leaves, stays = await begin(engine, asking(words(1, 2))), await begin(engine, asking(words(3, 4)))
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    device.door.set()
    await asyncio.gather(*before, stays)
    assert text_tokenizer().encode([words(1, 2)], truncate=True).ids[0] not in device.computed
    assert engine.inflight == 0
    await engine.close()


async def test_a_deadline_that_passes_in_the_queue_is_told_and_costs_nothing() -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    before = await occupied(device, engine)
    with pytest.raises(DeadlineExceeded, match="deadline passed"):
        await engine.embed(asking(words(1, 2), timeout_s=0.01))
    assert engine.backlog().queued_texts == 0
    device.door.set()
    await asyncio.gather(*before)
    assert len(device.computed) == 1
    await engine.close()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_no_time_at_all_computes_nothing(timeout_s: float) -> None:
    device = Device()
    engine = make_engine(device)
    with pytest.raises(DeadlineExceeded):
        await engine.embed(asking(words(1, 2), timeout_s=timeout_s))
    await engine.close()
    assert device.batches == []


async def test_a_deadline_that_passes_on_the_device_is_told_at_once() -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    with pytest.raises(DeadlineExceeded):
        await engine.embed(asking(words(1, 2), timeout_s=0.05))
    device.door.set()
    assert rows(await engine.embed(asking(words(1), timeout_s=30))).shape == (1, DIMS)
    await engine.close()


async def test_a_deadline_counts_by_the_engines_clock_too() -> None:
    device, clock = Device(shut=True), ManualClock()
    engine = make_engine(device, clock=clock)
    before = await occupied(device, engine)
    late = await begin(engine, asking(words(1, 2), timeout_s=100))
    clock.advance(100)
    device.door.set()
    with pytest.raises(DeadlineExceeded):
        await late
    await asyncio.gather(*before)
    assert len(device.computed) == 1
    await engine.close()


@pytest.mark.parametrize("bad", ["poison", "nan"])
async def test_a_bad_text_fails_its_own_request_alone(bad: str) -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    before = await occupied(device, engine)
    others = [await begin(engine, asking(words(i))) for i in range(9)]
    broken = await begin(engine, asking(words(20), bad, words(21)))
    device.door.set()
    with pytest.raises(BackendFailed):
        await broken
    await asyncio.gather(*before)
    for i, result in enumerate(await asyncio.gather(*others)):
        np.testing.assert_allclose(rows(result)[0], alone(words(i)), atol=1e-5)
    assert engine.readiness()[0]
    await engine.close()


async def test_a_device_that_always_fails_answers_and_is_not_ready() -> None:
    device = Device()
    engine = make_engine(device)

    def broken() -> None:
        raise OSError("lost the device")

    device.fault = broken
    assert engine.readiness()[0]
    for error in await asyncio.gather(*(engine.embed(asking(words(i))) for i in range(20)), return_exceptions=True):
        assert isinstance(error, BackendFailed)
        assert "lost the device" in str(error)
    ready, why = engine.readiness()
    assert not ready
    assert "lost the device" in why
    with pytest.raises(BackendFailed):
        await engine.probe()
    device.fault = lambda: None
    await engine.probe()
    assert engine.readiness()[0]
    await engine.close()


async def test_too_many_requests_are_refused_with_a_time() -> None:
    device = Device(shut=True)
    engine = make_engine(device, EngineOptions(max_concurrent_requests=3))
    before = [await begin(engine, asking(words(1))) for _ in range(3)]
    with pytest.raises(Overloaded, match="3 requests are under way, the limit is 3") as refused:
        await engine.embed(asking(words(1)))
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    device.door.set()
    await asyncio.gather(*before)
    await engine.embed(asking(words(1)))
    await engine.close()


async def test_an_empty_queue_takes_a_request_of_any_size_and_a_full_one_none() -> None:
    device = Device(shut=True)
    engine = make_engine(device, EngineOptions(max_queue_s=1e-6))
    before = await occupied(device, engine)
    huge = await begin(engine, asking(*[words(*range(20))] * 500))
    await until(lambda: engine.backlog().queued_texts >= 500)
    for request in (asking(words(1)), asking(*[words(1)] * 500)):
        with pytest.raises(Overloaded, match="the queue is predicted to take") as refused:
            await engine.embed(request)
        assert refused.value.retry_after_s == pytest.approx(max(1.0, engine.backlog().predicted_s / 2))
    device.door.set()
    await asyncio.gather(*before)
    assert len((await huge).token_counts) == 500
    await engine.close()


async def test_requests_that_tokenize_at_once_do_not_slip_past_the_limit() -> None:
    device = Device(shut=True)
    engine = make_engine(device, EngineOptions(max_queue_s=1e-6))
    before = await occupied(device, engine)
    # Long enough to be tokenized in a thread: at the door each of them sees an empty queue.
    tasks = [asyncio.create_task(engine.embed(asking(*[words(*range(60))] * 50))) for _ in range(8)]
    await until(lambda: sum(task.done() for task in tasks) == 7)
    assert engine.backlog().queued_texts <= 50
    device.door.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, Overloaded) for one in ended) == 7
    await asyncio.gather(*before)
    await engine.close()


async def test_background_is_refused_first_and_critical_last() -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    before = await occupied(device, engine)
    queued = [await begin(engine, asking(*[words(1)] * 100))]
    predicted_s = engine.backlog().predicted_s

    async def refused(priority: Priority) -> bool:
        task = await begin(engine, asking(words(2), priority=priority))
        if not task.done():
            queued.append(task)
        return task.done() and isinstance(task.exception(), Overloaded)

    seen = []
    for share in (0.4, 0.7, 1.5, 3.0):
        engine._admission = Admission(engine.loop, EngineOptions(max_queue_s=predicted_s / share))
        seen.append([await refused(priority) for priority in Priority])
    assert seen == [[False, False, False], [False, False, True], [False, True, True], [True, True, True]]
    device.door.set()
    await asyncio.gather(*before, *queued)
    await engine.close()


async def test_a_probe_passes_the_door() -> None:
    device = Device(shut=True)
    engine = make_engine(device, EngineOptions(max_concurrent_requests=1, max_queue_s=1e-6))
    first = await begin(engine, asking(words(1)))
    probe = asyncio.create_task(engine.probe())
    await device.arrival()
    device.door.set()
    await asyncio.gather(first, probe)
    await engine.close()


async def test_draining_finishes_what_was_accepted_and_takes_nothing_new() -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    accepted = await occupied(device, engine)
    draining = asyncio.create_task(engine.drain())
    await asyncio.sleep(0)
    with pytest.raises(Draining) as refused:
        await engine.embed(asking(words(1)))
    assert refused.value.retry_after_s
    assert not draining.done()
    device.door.set()
    await draining
    assert all(task.done() and task.exception() is None for task in accepted)
    await engine.close()


async def test_closing_answers_everyone_and_may_be_repeated() -> None:
    device = Device(shut=True)
    engine = make_engine(device)
    running = await occupied(device, engine)
    waiting = await begin(engine, asking(words(1)))
    closing = asyncio.create_task(engine.close())
    with pytest.raises(Draining):
        await waiting
    device.door.set()
    await asyncio.gather(closing, *running)
    await engine.close()
    assert device.closed
    with pytest.raises(Draining):
        await engine.embed(asking(words(1)))
    with pytest.raises(Draining):
        await engine.probe()


async def test_closing_while_texts_are_tokenized_answers() -> None:
    engine = make_engine(Device())
    task = asyncio.create_task(engine.embed(asking(*[words(*range(60))] * 400)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(Draining):
        await task


async def test_start_runs_the_common_shapes() -> None:
    device = Device()
    engine = make_engine(device, EngineOptions(warm_shapes=(((1, 8), (4, 16)),)))
    await engine.start()
    assert {batch.ids.shape for batch in device.batches} == {(1, 8), (4, 16)}
    await engine.close()


@pytest.mark.parametrize(("by_model", "by_request", "expected"), [(1, None, 1), (0, None, 0), (1, 0, 0), (0, 1, 1)])
async def test_normalizing(by_model: int, by_request: int | None, expected: int) -> None:
    engine = make_engine(Device(), model=model_info(normalize=bool(by_model)))
    wanted = None if by_request is None else bool(by_request)
    (row,) = rows(await engine.embed(asking(words(1, 2, 3), normalize=wanted)))
    raw = alone(words(1, 2, 3))
    np.testing.assert_allclose(row, raw / np.linalg.norm(raw) if expected else raw, atol=1e-5)
    await engine.close()


async def test_fewer_dimensions_are_the_first_and_of_length_one_again() -> None:
    engine = make_engine(Device(), model=model_info(normalize=True))
    result = rows(await engine.embed(asking(words(1, 2, 3), words(4), dimensions=5)))
    assert result.shape == (2, 5)
    assert result.flags.c_contiguous
    raw = alone(words(1, 2, 3))[:5]
    np.testing.assert_allclose(result[0], raw / np.linalg.norm(raw), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, atol=1e-6)
    plain = rows(await engine.embed(asking(words(1, 2, 3), dimensions=5, normalize=False)))
    np.testing.assert_allclose(plain[0], raw, atol=1e-5)
    assert plain.flags.c_contiguous
    await engine.close()


@pytest.mark.parametrize("dimensions", [0, -1, DIMS + 1])
async def test_dimensions_out_of_range(dimensions: int) -> None:
    engine = make_engine(Device())
    with pytest.raises(InvalidInput, match=f"from 1 to {DIMS}") as refused:
        await engine.embed(asking(words(1), dimensions=dimensions))
    assert refused.value.param == "dimensions"
    await engine.close()


async def test_a_row_of_zeros_stays_one() -> None:
    device = Device()
    engine = make_engine(device, model=model_info(normalize=True))
    device.compute = lambda batch: np.zeros((len(batch.lengths), DIMS), np.float32)
    assert not rows(await engine.embed(asking(words(1)))).any()
    await engine.close()


async def test_token_rows() -> None:
    engine = make_engine(Device(), model=model_info(normalize=True))
    result = await engine.embed(asking(words(1), words(2, 3, 4), output=Output.TOKENS, dimensions=3))
    assert isinstance(result.rows, list)
    assert [one.shape for one in result.rows] == [(3, 3), (5, 3)]
    np.testing.assert_allclose(np.linalg.norm(result.rows[1], axis=1), 1, atol=1e-6)
    await engine.close()


async def test_every_error_is_of_the_tree_and_tells_something() -> None:
    engine = make_engine(Device())
    for request in (asking("nan"), asking("poison"), asking(), asking("w1", dimensions=99), asking("w1", timeout_s=0)):
        with pytest.raises(TandemError) as told:
            await engine.embed(request)
        assert str(told.value)
    await engine.close()
