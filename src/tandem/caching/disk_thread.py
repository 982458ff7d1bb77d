"""A thread for calls that may hang with a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
V = TypeVar("V")


class DiskThread:
    """Makes calls, one after the other. A daemon, unlike those of a ThreadPoolExecutor: a disk that hangs must not keep
    the process from ending."""

    def __init__(self, name: str, faults: tuple[type[Exception], ...]) -> None:
        """A call may fail by ``faults``; anything else is a bug, and ends the thread with its traceback."""
        self._faults = faults
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Its future may be cancelled until the call begins."""
        future: Future[T] = Future()
        self._calls.put(lambda: self._make(call, future))
        return future

    def ask(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """The same for an event loop, which is woken once. A ``Future`` of threads that is wrapped for it would add 10
        microseconds of locks to the 20 that it takes to wake a thread and to be woken by it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put(partial(self._answer, call, future, loop))
        return future

    def close(self) -> None:
        """It ends after what was submitted."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _make(self, call: Callable[[], T], future: Future[T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except self._faults as error:
            future.set_exception(error)
        except BaseException as error:
            future.set_exception(error)
            raise

    def _answer(self, call: Callable[[], T], future: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
        if future.cancelled():
            return
        try:
            _tell(loop, future, future.set_result, call())
        except self._faults as error:
            _tell(loop, future, future.set_exception, error)
        except BaseException as error:
            _tell(loop, future, future.set_exception, error)
            raise


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], setter: Callable[[V], None], what: V) -> None:
    # A loop that is closed has nobody who waits.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, future, setter, what)


def _set(future: asyncio.Future[T], setter: Callable[[V], None], what: V) -> None:
    if not future.done():
        setter(what)
