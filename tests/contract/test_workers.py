"""What every worker must do, whatever it runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Queue
from threading import Thread
from typing import cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tandem.backends.base import Backend
from tandem.clock import SystemClock
from tandem.types import Output, TokenBatch
from tandem.workers.base import Done, Worker
from tandem.workers.inline import InlineWorker
from tests.engines import FAKE, NAN_ID, POISON_ID, Device, batch_of

WORKERS: dict[str, Callable[[Backend], Worker]] = {"inline": lambda backend: InlineWorker(backend, SystemClock())}


def batch(*rows: list[int], output: Output = Output.POOLED) -> TokenBatch:
    return batch_of(rows, output=output)


class Bench:
    """A worker, and what it called back with."""

    def __init__(self, make: Callable[[Backend], Worker], device: Device) -> None:
        self.device = device
        self.worker = make(device)
        self.done: Queue[Done] = Queue()

    def submit(self, one: TokenBatch) -> None:
        self.worker.submit(one, self.done.put)

    def run(self, one: TokenBatch) -> Done:
        self.submit(one)
        return self.next()

    def next(self) -> Done:
        return self.done.get(timeout=30)


@pytest.fixture(params=WORKERS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(WORKERS[request.param], Device(msgspec.structs.replace(FAKE, streams=2)))
    yield bench
    bench.device.door.set()
    bench.worker.close()


def test_computes_and_counts(bench: Bench) -> None:
    done = bench.run(batch([2, 9, 3], [2, 9, 9, 9, 3]))
    assert done.error is None
    assert done.rows is not None
    assert done.rows.shape == (2, 16)
    found = done.outcome
    assert (found.n, found.tokens, found.padded_tokens, found.sum_squares, found.ok) == (2, 8, 10, 34, True)
    assert found.seconds >= 0
    assert found.device_id == bench.worker.device_id


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


def test_a_closed_worker_answers_and_closes_again(bench: Bench) -> None:
    bench.worker.close()
    done = bench.run(batch([2, 9, 3]))
    assert done.rows is None
    assert done.error == "the device is closed"
    bench.worker.close()
