"""One thread for what is done in the background, and turns for what is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from threading import Event, Thread

from tandem.vectors.turns import Turns
from tandem.vectors.work import Worker


def test_jobs_run_in_their_order() -> None:
    worker = Worker(threaded=True)
    ran: list[int] = []

    def job(number: int) -> Callable[[Callable[[], bool]], None]:
        return lambda _: ran.append(number)

    for number in range(20):
        assert worker.submit(job(number))
    worker.settle()
    assert ran == list(range(20))
    worker.close()


def test_without_a_thread_jobs_wait_until_they_are_told_to_run() -> None:
    worker = Worker(threaded=False)
    ran: list[str] = []

    def first(_: Callable[[], bool]) -> None:
        ran.append("first")
        worker.submit(lambda _: ran.append("second"))

    worker.submit(first)
    assert ran == []
    assert worker.run_pending() == 2
    assert ran == ["first", "second"]
    assert worker.run_pending() == 0


def test_a_job_that_fails_ends_nothing_and_is_counted() -> None:
    worker = Worker(threaded=True)
    ran: list[int] = []

    def fails(_: Callable[[], bool]) -> None:
        raise MemoryError("no room")

    worker.submit(fails)
    worker.submit(lambda _: ran.append(1))
    worker.settle()
    assert ran == [1]
    assert (worker.faults, worker.fault) == (1, "MemoryError: no room")
    worker.close()


def test_close_stops_what_runs_and_drops_what_waits() -> None:
    worker = Worker(threaded=True)
    begun, ran = Event(), []

    def until_stopped(stopped: Callable[[], bool]) -> None:
        begun.set()
        while not stopped():
            pass

    worker.submit(until_stopped)
    worker.submit(lambda _: ran.append(1))
    assert begun.wait(60)
    worker.close()
    worker.close()
    assert ran == []
    assert not worker.submit(lambda _: None)
    worker.settle()


BUILDS_AND_ENDS = """
import numpy as np
from tandem.vectors import IndexOptions, best_index

index = best_index(IndexOptions(dims=64, linear_up_to=10))
index.add(np.arange(4000), np.random.default_rng(1).standard_normal((4000, 64)).astype(np.float32))
"""


def test_a_process_that_ends_during_a_build_ends_well() -> None:
    ended = subprocess.run([sys.executable, "-c", BUILDS_AND_ENDS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_turns_are_taken_in_the_order_of_asking() -> None:
    turns = Turns()
    order: list[int] = []

    def take(number: int) -> None:
        with turns:
            order.append(number)

    threads = [Thread(target=take, args=(number,)) for number in range(5)]
    with turns:
        for asked, thread in enumerate(threads, 1):
            thread.start()
            # Until it stands in line; the next must not overtake it.
            while len(turns.waiting) < asked:
                pass
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_turn_ends_with_an_error_too() -> None:
    turns = Turns()
    for _ in range(2):
        try:
            with turns:
                raise KeyError
        except KeyError:
            continue
    with turns:
        assert not turns.waiting
