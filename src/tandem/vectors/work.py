"""Work in the background: one thread, one job at a time, that ends when it is told to."""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import TypeAlias

from tandem.errors import ConfigError

Job: TypeAlias = Callable[[Callable[[], bool]], None]
"""Is handed what says whether it shall stop; it looks between steps of a few milliseconds."""

# What a build may end in: no memory, or an index library that refuses or can not be loaded. The old index serves on.
FAULTS = (MemoryError, RuntimeError, ValueError, ConfigError)


class Worker:
    """Runs jobs in their order. ``threaded``: by a thread of its own, started with the first job; without, when
    ``run_pending`` is called, so that a test says when. ``faults`` counts jobs that failed, ``fault`` has the last."""

    def __init__(self, *, threaded: bool) -> None:
        self._threaded = threaded
        self._jobs: deque[Job] = deque()
        self._changed = Condition()
        self._running = 0
        self._closed = False
        self._thread: Thread | None = None
        self.faults = 0
        self.fault = ""

    def submit(self, job: Job) -> bool:
        """Whether it will be run: a closed worker takes none."""
        with self._changed:
            if self._closed:
                return False
            self._jobs.append(job)
            if self._threaded and self._thread is None:
                self._thread = Thread(target=self._serve, name="tandem-index", daemon=True)
                self._thread.start()
                # A thread that is inside the index library when the interpreter ends would abort the process.
                atexit.register(self.close)
            self._changed.notify_all()
        return True

    def run_pending(self) -> int:
        """Run what waits, in the caller's thread; how many jobs. They may submit further ones, which count."""
        done = 0
        while (job := self._next(wait=False)) is not None:
            self._run(job)
            done += 1
        return done

    def settle(self) -> None:
        """Wait until nothing waits or runs."""
        if not self._threaded:
            self.run_pending()
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs and not self._running)

    def close(self) -> None:
        """Drop what waits, stop what runs, and end the thread. Idempotent."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            atexit.unregister(self.close)

    def _serve(self) -> None:
        while (job := self._next(wait=True)) is not None:
            self._run(job)

    def _next(self, *, wait: bool) -> Job | None:
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._jobs or self._closed)
            if self._closed or not self._jobs:
                return None
            self._running += 1
            return self._jobs.popleft()

    def _run(self, job: Job) -> None:
        try:
            job(lambda: self._closed)
        except FAULTS as error:
            self.faults += 1
            self.fault = f"{type(error).__name__}: {error}"
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
