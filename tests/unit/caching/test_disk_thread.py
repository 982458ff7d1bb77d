"""Calls are made in turn, answered as they end, and a process ends though one of them hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from functools import partial

import pytest

from tandem.caching.disk_thread import DiskThread

HANGING = """
import threading
from tandem.caching.disk_thread import DiskThread
begun = threading.Event()
DiskThread("hangs", ()).submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
"""


def test_calls_are_made_in_turn_and_answered() -> None:
    thread, order = DiskThread("test", (OSError,)), list[int]()

    def note(number: int) -> int:
        order.append(number)
        if number == 2:
            raise OSError("full")
        return number

    first, failed, last = (thread.submit(partial(note, number)) for number in (1, 2, 3))
    with pytest.raises(OSError, match="full"):
        failed.result()
    assert (first.result(), last.result()) == (1, 3)
    assert order == [1, 2, 3]
    thread.close()


def test_a_call_that_nobody_waits_for_is_not_made() -> None:
    thread, may, made = DiskThread("test", ()), threading.Event(), list[int]()
    thread.submit(may.wait)
    left = thread.submit(lambda: made.append(1))
    assert left.cancel()
    may.set()
    thread.submit(lambda: None).result()
    assert made == []
    with pytest.raises(CancelledError):
        left.result()
    thread.close()


async def test_an_event_loop_is_answered_in_turn_and_its_errors_are_its_own() -> None:
    thread, order = DiskThread("test", (OSError,)), list[int]()

    def note(number: int) -> int:
        order.append(number)
        if number == 2:
            raise OSError("full")
        return number

    first, failed, last = (thread.ask(partial(note, number)) for number in (1, 2, 3))
    assert (await first, await last) == (1, 3)
    with pytest.raises(OSError, match="full"):
        await failed
    assert order == [1, 2, 3]
    thread.close()


async def test_what_an_event_loop_does_not_wait_for_is_not_read() -> None:
    thread, may, made = DiskThread("test", ()), threading.Event(), list[int]()
    busy = thread.ask(may.wait)
    left = thread.ask(lambda: made.append(1))
    left.cancel()
    busy.cancel()
    may.set()
    await thread.ask(lambda: None)
    assert made == []
    thread.close()


def test_an_event_loop_that_has_ended_ends_no_thread() -> None:
    thread, may = DiskThread("test", ()), threading.Event()

    async def ask() -> None:
        thread.ask(may.wait)

    asyncio.run(ask())
    may.set()
    assert thread.submit(lambda: 7).result() == 7
    thread.close()


def test_a_process_ends_though_a_call_hangs() -> None:
    assert subprocess.run([sys.executable, "-c", HANGING], timeout=60, check=False).returncode == 0
