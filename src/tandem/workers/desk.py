"""Where those who submit batches and the thread that keeps the child meet: everything they share, under one lock."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from threading import Lock

from tandem.clock import Clock, SystemClock
from tandem.errors import MemoryExhausted
from tandem.types import Output, TokenBatch
from tandem.workers.base import DeviceFacts, Done, outcome_of
from tandem.workers.handle import Child
from tandem.workers.ledger import Flight, Ledger
from tandem.workers.messages import Ended, Stop
from tandem.workers.slab import Slab

_CLOSED = "the device is closed"


class Desk:
    """Takes batches while a child is up, hands them over as it has room, and answers each once, whatever becomes of
    the child. ``facts`` are there once ``open`` has been called. Callbacks are called without the lock."""

    facts: DeviceFacts

    def __init__(self, device_id: str, slab: Slab, clock: Clock, timeout_s: float) -> None:
        self.device_id = device_id
        self.why = "has not started"
        """How things stand with the child, in words that go after "the worker process"."""
        self._slab = slab
        self._clock = clock
        # The child reads the system's clock, the same one for all processes of a machine.
        self._shift_s = clock.now() - SystemClock.now()
        self._timeout_s = timeout_s
        self._lock = Lock()
        self._telling = Lock()
        self._listener: Callable[[bool, str], None] = _nobody
        self._numbers = count()
        self._ledger = Ledger(0, timeout_s)
        self._child: Child | None = None
        self._up = self._closed = False
        self._stop_due_s: float | None = None
        self._lingering: list[Flight] = []

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        with self._lock:
            error, lost = self._accept(batch, on_done)
        if error:
            on_done(self._failed(batch, error, lost))

    def watch(self, listener: Callable[[bool, str], None]) -> None:
        self._listener = listener
        if not self._up:
            self._tell()

    @property
    def pid(self) -> int | None:
        """The child that serves; None while none does."""
        with self._lock:
            return self._child.pid if self._child is not None and self._up else None

    def adopt(self, child: Child) -> None:
        """A child that is not ready yet."""
        with self._lock:
            self._child = child
            if self._closed:
                child.kill(_CLOSED)

    def open(self, child: Child, facts: DeviceFacts) -> None:
        """The child is ready: take batches."""
        with self._lock:
            self.facts = facts
            self._ledger = Ledger(facts.streams, self._timeout_s)
            self._up, self.why = True, "serves"
            self._hand_over(child)
        self._tell()

    def due_s(self) -> float | None:
        """When the child must have answered or ended; None when it has nothing to do."""
        with self._lock:
            return self._ledger.due_s() or self._stop_due_s

    def settle(self, child: Child, ended: Ended) -> bool:
        """Pass an answer on; False when the child had no such job."""
        with self._lock:
            flight = self._ledger.ended(ended.number, self._clock.now())
            self._hand_over(child)
        if flight is None:
            return False
        ok = ended.error is None
        times = ended.started_s + self._shift_s, ended.finished_s + self._shift_s
        outcome = outcome_of(self.device_id, flight.batch, *times, ok=ok)
        flight.on_done(Done(outcome, flight.cargo.rows if ok else None, ended.error))
        return True

    def bury(self, child: Child) -> None:
        """The child has ended, or is to: see to it, and answer for what it had."""
        with self._lock:
            was_up, self._up, self._child = self._up, False, None
            self.why = "has just ended"
        self.why = child.end()
        flights = self._ledger.clear()
        if child.undead:
            # It may write yet to memory that others would be given.
            self._lingering += flights
        if was_up and not self._closed:
            self._tell()
        for flight in flights:
            flight.on_done(self._failed(flight.batch, f"the worker process {self.why}", True))

    def kill(self, why: str) -> None:
        """End the child that serves, if one does."""
        with self._lock:
            if self._up and self._child is not None:
                self._child.kill(why)

    def close(self) -> None:
        """Take no more; the child ends when it has finished what was taken."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._child is not None and self._up:
                self._hand_over(self._child)
            elif self._child is not None:
                self._child.kill(_CLOSED)

    def _accept(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> tuple[str, bool]:
        """Take a batch; or say why not, and whether that is for want of a process."""
        if self._closed:
            return _CLOSED, False
        if self._child is None or not self._up:
            return f"the worker process {self.why}", True
        width = self.facts.hidden if batch.output is Output.TOKENS else self.facts.dims
        try:
            cargo = self._slab.load(next(self._numbers), batch, width)
        except (MemoryExhausted, MemoryError) as error:
            return f"no memory for a batch of shape {batch.ids.shape}: {error}", False
        self._ledger.add(Flight(batch, on_done, cargo))
        self._hand_over(self._child)
        return "", False

    def _hand_over(self, child: Child) -> None:
        """Give the child what it has room for, and the word to stop after the last."""
        now = self._clock.now()
        while (flight := self._ledger.next(now)) is not None:
            child.send(flight.cargo.job, flight.cargo.files)
        if self._closed and not self._ledger.waiting and self._stop_due_s is None:
            self._stop_due_s = now + self._timeout_s
            child.send(Stop())

    def _failed(self, batch: TokenBatch, error: str, lost: bool) -> Done:
        now = self._clock.now()
        return Done(outcome_of(self.device_id, batch, now, now, ok=False), error=error, lost=lost)

    def _tell(self) -> None:
        # Read under this lock, what the last call tells is how it is.
        with self._telling:
            self._listener(self._up, self.why)


def _nobody(up: bool, why: str) -> None:
    """Nobody listens yet."""
