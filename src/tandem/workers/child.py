"""The child's side of ``ProcessWorker``: ``python -m tandem.workers.child``, started by it alone.

Inside works the ``Runner`` of an inline worker: the same checks and answers as without a process around them.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import Backend
from tandem.backends.child_process import leave_no_core
from tandem.clock import SystemClock
from tandem.errors import TandemError
from tandem.workers.base import Done, facts_of
from tandem.workers.inline import Runner
from tandem.workers.messages import Ended, Hello, Job, Line, Refused, Said, Setup, Stop, shortened
from tandem.workers.slab import Reader

_PR_SET_PDEATHSIG = 1
# Of 1,000, added to what the kernel makes of a process's size when it looks for one to end.
_OUT_OF_MEMORY_FIRST = "500"


class Server:
    """Takes jobs from the line, runs them, answers: one thread a stream, each for itself. A job that went through one
    thread's hands into another's would be 0.05 ms later, of the 2 that a short question takes."""

    def __init__(self, line: Line, slab: Reader, runner: Runner, streams: int) -> None:
        self._line = line
        self._slab = slab
        self._runner = runner
        self._streams = streams
        self._told_to_stop = False

    def serve(self) -> bool:
        """Until told to stop; then what it has is finished. False when the parent is gone, and nobody wants it."""
        others = [Thread(target=self._work, name=f"stream {i}", daemon=True) for i in range(1, self._streams)]
        for thread in others:
            thread.start()
        self._work()
        if self._told_to_stop:
            for thread in others:
                thread.join()
        return self._told_to_stop

    def _work(self) -> None:
        while True:
            message, fd = self._line.to_child()
            if isinstance(message, Job):
                try:
                    batch, rows = self._slab.unload(message, fd)
                except (OSError, ValueError, MemoryError, TandemError) as error:
                    # No memory to map it, say. The parent must hear of it, and this thread go on.
                    self._refuse(message.number, f"its input can not be read: {error}")
                    continue
                self._answer(message.number, rows, self._runner.run(batch))
                continue
            if isinstance(message, Stop):
                self._told_to_stop = True
                # It comes after the last job; the other threads wait for nothing any more.
                self._line.hush()
            return

    def _refuse(self, number: int, why: str) -> None:
        now = SystemClock.now()
        with suppress(OSError):
            self._line.send(Ended(number, now, now, shortened(why)))

    def _answer(self, number: int, rows: NDArray[np.float32], done: Done) -> None:
        error = done.error
        if done.rows is not None and done.rows.shape != rows.shape:
            error = f"the forward pass gave an array of shape {done.rows.shape}, announced was {rows.shape}"
        elif done.rows is not None:
            np.copyto(rows, done.rows)
        times = done.outcome.started_s, done.outcome.finished_s
        with suppress(OSError):  # a parent that is gone takes this process with it
            self._line.send(Ended(number, *times, None if error is None else shortened(error)))


class _ToParent(logging.Handler):
    """Sends the log's lines up, to be written where and as the parent writes its own."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except (TypeError, ValueError, KeyError):  # its arguments do not fit; the batch goes on
            self.handleError(record)
            return
        with suppress(OSError):
            self._line.send(Said(shortened(record.name), record.levelno, shortened(text)))


def main() -> int:
    """Serve until the parent says stop, or ends."""
    setup = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Setup)
    _live_and_die_with(setup.parent_id)
    for fd in (setup.socket_fd, setup.slab_fd):
        os.set_inheritable(fd, False)
    line = Line(socket.socket(fileno=setup.socket_fd))
    logging.basicConfig(level=setup.log_level, handlers=[_ToParent(line)], format="%(message)s")
    slab = Reader(setup.slab_fd, setup.slab_bytes)
    try:
        backend: Backend = pickle.loads(setup.build)()
    except TandemError as error:
        line.send(Refused(shortened(str(error))))
        return 1
    except BaseException as error:
        line.send(Refused(shortened(f"{type(error).__name__}: {error}")))
        raise
    runner = Runner(backend, SystemClock(), setup.device_id)
    line.send(Hello(facts_of(backend)))
    served = Server(line, slab, runner, backend.streams).serve()
    if served:
        backend.close()
    return 0 if served else 1


def _live_and_die_with(parent_id: int) -> None:
    """Outlive no parent, by any end of it; and leave signals that a whole group or service gets to the parent, which
    lets its children finish."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:
        sys.exit("the parent ended before its child had begun")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Engines print to standard output as they please; it is the parent's, and may be its product.
    os.dup2(2, 1)
    leave_no_core()
    faulthandler.enable()
    # Of the two the child can be replaced, and the parent holds the requests.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_FIRST)


if __name__ == "__main__":
    returncode = main()
    # Not sys.exit: engines have crashed when the interpreter took them down with it, and nothing is left to save.
    sys.stderr.flush()
    os._exit(returncode)
