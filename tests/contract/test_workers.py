"""What every worker must do, whatever it runs in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.backends.fake import FakeBackend
from tandem.clock import SystemClock
from tandem.types import Output, TokenBatch
from tandem.workers.base import Done, Worker
from tandem.workers.inline import InlineWorker
from tandem.workers.process import ProcessWorker, WorkerSpec
from tests.conftest import REPOSITORY
from tests.engines import FAKE, NAN_ID, POISON_ID, Device, batch_of
from tests.remote_device import RemoteBackend, RemoteDevice


def batch(*rows: list[int], output: Output = Output.POOLED) -> TokenBatch:
    return batch_of(rows, output=output)


class Bench:
    """A worker, and what it called back with."""

    def __init__(self, device: Device, worker: Worker) -> None:
        self.device = device
        self.worker = worker
        self.done: Queue[Done] = Queue()

    def submit(self, one: TokenBatch) -> None:
        self.worker.submit(one, self.done.put)

    def run(self, one: TokenBatch) -> Done:
        self.submit(one)
        return self.next()

    def next(self) -> Done:
        return self.done.get(timeout=30)


@pytest.fixture(params=["inline", "process"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    device = Device(msgspec.structs.replace(FAKE, streams=2))
    with ExitStack() as stack:
        if request.param == "inline":
            worker: Worker = InlineWorker(device, SystemClock())
        else:
            monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
            remote = RemoteDevice(device, tmp_path)
            stack.callback(remote.close)
            spec = WorkerSpec(device_id="cpu", build=partial(RemoteBackend, remote.address))
            worker = ProcessWorker(spec, SystemClock())
        stack.callback(worker.close)
        stack.callback(device.door.set)
        yield Bench(device, worker)


def test_computes_and_counts(bench: Bench) -> None:
    done = bench.run(batch([2, 9, 3], [2, 9, 9, 9, 3]))
    assert done.error is None
    assert done.rows is not None
    assert done.rows.shape == (2, 16)
    found = done.outcome
    assert (found.n, found.tokens, found.padded_tokens, found.sum_squares, found.ok) == (2, 8, 10, 34, True)
    assert found.seconds >= 0
    assert found.device_id == bench.worker.device_id


def test_the_device_gets_what_was_submitted(bench: Bench) -> None:
    ids = bench.worker.empty((2, 8))
    ids[:] = np.arange(16).reshape(2, 8)
    lengths, places, skips = (np.array(numbers, np.int32) for numbers in ([3, 4, 8], [0, 3, 8], [0, 1, 2]))
    packed = TokenBatch(ids=ids, lengths=lengths, places=places, skips=skips)
    bench.device.compute = lambda one: np.zeros((3, 16), np.float32)
    for one in (packed, msgspec.structs.replace(packed, skips=None), msgspec.structs.replace(packed, ids=ids.copy())):
        done = bench.run(one)
        assert done.rows is not None
        assert done.rows.shape == (3, 16)
        got = bench.device.batches[-1]
        assert [got.output, got.skips is None] == [one.output, one.skips is None]
        for field in ("ids", "lengths", "places", "skips"):
            np.testing.assert_array_equal(getattr(got, field), getattr(one, field))


def test_rows_are_the_callers_to_keep(bench: Bench) -> None:
    kept = [bench.run(batch([2, 9 + i, 3], [2, 3])).rows for i in range(20)]
    bench.worker.close()
    for i, rows in enumerate(kept):
        assert rows is not None
        np.testing.assert_array_equal(rows, FakeBackend(FAKE).run(batch([2, 9 + i, 3], [2, 3])))


def test_token_rows_have_a_row_a_token(bench: Bench) -> None:
    done = bench.run(batch([2, 9, 3], [2, 9, 9, 9, 3], output=Output.TOKENS))
    assert done.rows is not None
    assert done.rows.shape == (2, 5, 16)


@pytest.mark.parametrize(("bad", "told"), [(POISON_ID, "token 4 is poison"), (NAN_ID, "not finite")])
def test_a_failure_is_an_answer_and_ends_nothing(bench: Bench, bad: int, told: str) -> None:
    for _ in range(5):
        done = bench.run(batch([2, 9, 3], [2, bad, 3]))
        assert done.rows is None
        assert done.error is not None
        assert told in done.error
        assert not done.outcome.ok
    assert bench.run(batch([2, 9, 3])).rows is not None


@pytest.mark.parametrize("wrong", [np.zeros((1, 16), np.float32), np.zeros((2, 5, 16), np.float32), None])
def test_an_answer_of_the_wrong_shape_is_a_failure(bench: Bench, wrong: object) -> None:
    bench.device.compute = lambda one: cast("NDArray[np.float32]", wrong)
    done = bench.run(batch([2, 9, 3], [2, 9, 9, 9, 3]))
    assert done.rows is None
    assert done.error


def test_padding_may_hold_anything(bench: Bench) -> None:
    rows: NDArray[np.float32] = np.zeros((2, 5, 16), np.float32)
    rows[0, 3:] = np.nan
    bench.device.compute = lambda one: rows
    assert bench.run(batch([2, 9, 3], [2, 9, 9, 9, 3], output=Output.TOKENS)).error is None
    rows[1, 4] = np.inf
    assert bench.run(batch([2, 9, 3], [2, 9, 9, 9, 3], output=Output.TOKENS)).error is not None


def test_slots_batches_run_side_by_side(bench: Bench) -> None:
    assert bench.worker.slots == 2
    bench.device.door.clear()
    for _ in range(2):
        bench.submit(batch([2, 9, 3]))
    for _ in range(2):
        assert bench.device.arrived.acquire(timeout=30)
    bench.device.door.set()
    assert [bench.next().error for _ in range(2)] == [None, None]


def test_every_batch_is_answered_once(bench: Bench) -> None:
    def caller() -> None:
        for i in range(50):
            bench.submit(batch([2, 9, i % 2 + 3]))

    threads = [Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [bench.next() for _ in range(200)]
    bench.worker.close()
    assert bench.done.empty()
    assert sum(one.error is not None for one in answers) == 100


def test_closing_finishes_what_is_queued_and_frees_the_device(bench: Bench) -> None:
    bench.device.door.clear()
    for _ in range(5):
        bench.submit(batch([2, 9, 3]))
    closing = Thread(target=bench.worker.close)
    closing.start()
    bench.device.door.set()
    closing.join(30)
    assert [bench.next().error for _ in range(5)] == [None] * 5
    assert bench.device.closed >= 1


def test_closing_at_once_answers_all(bench: Bench) -> None:
    bench.device.door.clear()
    for _ in range(8):
        bench.submit(batch([2, 9, 3]))
    for _ in range(2):
        assert bench.device.arrived.acquire(timeout=60)
    bench.worker.close(at_once=True)
    bench.device.door.set()
    answers = [bench.next() for _ in range(8)]
    assert sum(one.refused for one in answers) >= 4
    assert bench.done.empty()
    bench.worker.close(at_once=True)


def test_a_closed_worker_answers_and_closes_again(bench: Bench) -> None:
    bench.worker.close()
    done = bench.run(batch([2, 9, 3]))
    assert done.rows is None
    assert done.error == "the device is closed"
    bench.worker.close()
