"""A worker whose backend lives in a process of its own, which may die or hang without harm to anybody else."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import Backend
from tandem.clock import Clock
from tandem.errors import BackendFailed, MemoryFault
from tandem.memory import PoolStatistics
from tandem.types import TokenBatch
from tandem.workers.base import DeviceFacts, Done
from tandem.workers.desk import Desk
from tandem.workers.handle import Birth, Child
from tandem.workers.ledger import RestartOptions, Restarts
from tandem.workers.messages import Ended, FromChild, Hello, Refused, Said
from tandem.workers.slab import Slab

log = logging.getLogger("tandem.workers")


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process. ``build`` makes its backend there; it is pickled, so it is a function of a module, or a
    ``functools.partial`` over one. ``cpus``: the cores it is bound to, None for the parent's; ``threads`` of its
    libraries, 0 for their own choice. A batch that takes longer than ``forward_timeout_s`` has hung. ``slab_bytes``:
    shared memory for ids and rows; batches for which it has no room get their own."""

    device_id: str
    build: Callable[[], Backend]
    cpus: tuple[int, ...] | None = None
    threads: int = 0
    forward_timeout_s: float = 60.0
    start_timeout_s: float = 300.0
    slab_bytes: int = 32 << 20
    restarts: RestartOptions = RestartOptions()


class ProcessWorker:
    """Runs a backend in a child process, and in another one when that ends.

    One thread, the keeper, starts the child, hears its answers, and waits for its end and for the time when a batch is
    overdue, all in one call of ``poll``. Batches are sent by whoever submits them.
    """

    def __init__(self, spec: WorkerSpec, clock: Clock) -> None:
        """Blocks until the backend is built. Raises BackendFailed with why it was not, MemoryExhausted, and what
        pickle raises for a ``build`` that it can not pickle."""
        self.device_id = spec.device_id
        self._spec = spec
        self._birth = Birth(
            device_id=spec.device_id, build=pickle.dumps(spec.build), cpus=spec.cpus, threads=spec.threads
        )
        self._clock = clock
        self._slab = Slab(spec.slab_bytes, clock)
        self._desk = Desk(spec.device_id, self._slab, clock, spec.forward_timeout_s)
        self._closed = Event()
        begun: SimpleQueue[bool] = SimpleQueue()
        self._keeper = Thread(target=self._keep, args=(begun.put,), name=f"tandem-{spec.device_id}", daemon=True)
        self._keeper.start()
        try:
            if not begun.get():
                raise BackendFailed(f"{self.device_id}: the worker process {self._desk.why}")
        except BaseException:
            self.close()
            raise
        self.facts = self._desk.facts
        self.slots = self.facts.streams

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        self._desk.submit(batch, on_done)

    def watch(self, listener: Callable[[bool, str], None]) -> None:
        self._desk.watch(listener)

    def restart(self, why: str) -> None:
        self._desk.kill(f"was ended: {why}")

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        return self._slab.empty(shape)

    @property
    def pid(self) -> int | None:
        """The process that serves; None while none does."""
        return self._desk.pid

    def statistics(self) -> PoolStatistics:
        """Of the shared memory."""
        return self._slab.statistics()

    def close(self, at_once: bool = False) -> None:
        self._closed.set()
        self._desk.close(at_once)
        self._keeper.join()
        self._slab.close()

    def _keep(self, begun: Callable[[bool], None]) -> None:
        """One child after the other."""
        served_s = self._guarded_life(partial(begun, True))
        begun(False)  # unless the first word was another
        if not self._desk.opened:
            return
        restarts = Restarts(self._spec.restarts)
        while not self._closed.is_set():
            delay_s = restarts.delay_s(served_s)
            self._desk.why += f"; another starts in {delay_s:g} s"
            log.error("%s: the worker process %s", self.device_id, self._desk.why)
            self._desk.tell()
            if not self._closed.wait(delay_s):
                served_s = self._guarded_life(partial(log.warning, "%s: the worker process is back", self.device_id))

    def _guarded_life(self, up: Callable[[], object]) -> float:
        """``_life``; what it should not raise counts as a start that failed."""
        try:
            return self._life(up)
        # Nobody else starts a child: without this thread the device would be gone for good, for want of a few bytes.
        except Exception as error:
            log.exception("%s: the thread that keeps the worker process failed", self.device_id)
            self._desk.why = f"could not be kept: {type(error).__name__}: {error}"
            return 0.0

    def _check_slab(self) -> None:
        """A child wrote into this memory until it died: a good time to see that the books are still in order."""
        try:
            self._slab.check()
        except MemoryFault:
            log.exception("%s: the pool of shared memory is not in order", self.device_id)

    def _life(self, up: Callable[[], object]) -> float:
        """One child from its start to its end. Returns for how long it served."""
        try:
            child = Child(self._birth, self._slab.region)
        except BackendFailed as error:
            self._desk.why = str(error)
            return 0.0
        since_s = None
        try:
            self._desk.adopt(child)
            with suppress(EOFError):
                facts = self._greet(child)
                self._desk.open(child, facts)
                since_s = self._clock.now()
                up()
                self._serve(child)
        finally:
            self._desk.bury(child)
            self._check_slab()
        return 0.0 if since_s is None else self._clock.now() - since_s

    def _greet(self, child: Child) -> DeviceFacts:
        """Wait until the backend is built. Raises EOFError when it will not be."""
        patience_s = self._spec.start_timeout_s
        give_up_s = self._clock.now() + patience_s
        while True:
            message = child.receive(give_up_s - self._clock.now())
            if message is None:
                child.kill(f"was not ready in {patience_s:g} s")
                raise EOFError
            if isinstance(message, Hello):
                # The rest relies on what it was told of the first.
                if message.facts == getattr(self, "facts", message.facts):
                    return message.facts
                child.kill(f"came back as another backend, {message.facts}")
            elif isinstance(message, Refused):
                child.blame(f"could not build its backend: {message.why}")
            else:
                self._hear(child, message)

    def _serve(self, child: Child) -> None:
        """Hear answers until the child ends, which raises EOFError, or is overdue."""
        patience_s = self._spec.forward_timeout_s
        while True:
            due_s, now = self._desk.due_s(), self._clock.now()
            if due_s is not None and due_s <= now:
                child.kill(f"gave no answer in {patience_s:g} s (forward_timeout_s)")
                return
            # With nothing to wait for, no longer either: what is submitted meanwhile is due after that, so nobody need
            # wake this thread to tell it.
            message = child.receive(patience_s if due_s is None else due_s - now)
            if message is not None:
                self._hear(child, message)

    def _hear(self, child: Child, message: FromChild) -> None:
        """Raises EOFError when it has ended the child for what it said."""
        if isinstance(message, Said):
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
        elif not (isinstance(message, Ended) and self._desk.settle(child, message)):
            child.kill(f"said what makes no sense: {message}")
            raise EOFError
