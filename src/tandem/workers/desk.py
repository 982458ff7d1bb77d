"""Where those who submit batches and the thread that keeps the child meet: everything they share, under one lock."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from threading import Lock

from tandem.clock import Clock, SystemClock
from tandem.errors import MemoryExhausted
from tandem.types import Output, TokenBatch
from tandem.workers.base import DeviceFacts, Done, outcome_of
from tandem.workers.callbacks import call
from tandem.workers.handle import Child
from tandem.workers.ledger import Flight, Ledger
from tandem.workers.messages import Ended, Stop
from tandem.workers.slab import Slab

_CLOSED = "the device is closed"
_ENDED = "was ended, as the device is closed"


class Desk:
    """Takes batches while a child is up, hands them over as it has room, and answers each once, whatever becomes of
    the child. ``facts`` are there once ``open`` has been called (``opened``). Callbacks are called without the lock."""

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
        self._up = self._closed = self.opened = False
        self._stop_due_s: float | None = None
        self._lingering: list[Flight] = []

    def submit(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> None:
        with self._lock:
            error, refused = self._accept(batch, on_done)
        if error:
            on_done(self._failed(batch, error, refused=refused))

    def watch(self, listener: Callable[[bool, str], None]) -> None:
        self._listener = listener
        if not self._up:
            self.tell()

    def tell(self) -> None:
        """Tell the listener how it is."""
        # Read under this lock, what the last call tells is how it is.
        with self._telling:
            call(self.device_id, self._listener, self._up, self.why)

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
                child.kill(_ENDED)

    def open(self, child: Child, facts: DeviceFacts) -> None:
        """The child is ready: take batches."""
        with self._lock:
            self.facts = facts
            self._ledger = Ledger(facts.streams, self._timeout_s)
            self._up, self.opened, self.why = True, True, "serves"
            self._hand_over(child)
        self.tell()

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
        call(self.device_id, flight.on_done, Done(outcome, flight.cargo.rows if ok else None, ended.error))
        return True

    def bury(self, child: Child) -> None:
        """The child has ended, or is to: see to it, and answer for what it had. Only that is lost; what waited for room
        is refused."""
        with self._lock:
            self._up, self._child = False, None
            self.why = child.blamed or "has ended"
            there, waiting = self._ledger.clear()
        # Before the end is certain, which can take seconds: whoever would submit meanwhile must know.
        if not self._closed:
            self.tell()
        for flight in waiting:
            error = f"the worker process {self.why}"
            call(self.device_id, flight.on_done, self._failed(flight.batch, error, refused=True))
        # And what it had is answered after its end: until then it may write to memory that others would be given.
        self.why = child.end()
        if child.undead:
            self._lingering += there
        for flight in there:
            error = f"the worker process {self.why}"
            call(self.device_id, flight.on_done, self._failed(flight.batch, error, lost=True))

    def kill(self, why: str) -> None:
        """End the child that serves, if one does."""
        with self._lock:
            if self._up and self._child is not None:
                self._up, self.why = False, why
                self._child.kill(why)

    def close(self, at_once: bool) -> None:
        """Take no more. The child ends when it has finished what was taken, or ``at_once``."""
        with self._lock:
            first, self._closed = not self._closed, True
            if self._child is None:
                return
            if at_once or not self._up:
                self._up = False
                self._child.kill(_ENDED)
            elif first:
                self._hand_over(self._child)

    def _accept(self, batch: TokenBatch, on_done: Callable[[Done], None]) -> tuple[str, bool]:
        """Take a batch; or say why not, and whether another time or another device would do."""
        if self._closed:
            return _CLOSED, False
        if self._child is None or not self._up:
            return f"the worker process {self.why}", True
        width = self.facts.hidden if batch.output is Output.TOKENS else self.facts.dims
        try:
            cargo = self._slab.load(next(self._numbers), batch, width)
        except (MemoryExhausted, MemoryError) as error:
            return f"no memory for a batch of shape {batch.ids.shape}: {error}", True
        self._ledger.add(Flight(batch, on_done, cargo))
        self._hand_over(self._child)
        return "", False

    def _hand_over(self, child: Child) -> None:
        """Give the child what it has room for, and the word to stop after the last."""
        if not self._up:
            return
        now = self._clock.now()
        while (flight := self._ledger.next(now)) is not None:
            child.send(flight.cargo.job, flight.cargo.files)
            flight.cargo.sent()
        if self._closed and not self._ledger.waiting and self._stop_due_s is None:
            self._stop_due_s = now + self._timeout_s
            child.send(Stop())

    def _failed(self, batch: TokenBatch, error: str, *, lost: bool = False, refused: bool = False) -> Done:
        now = self._clock.now()
        outcome = outcome_of(self.device_id, batch, now, now, ok=False)
        return Done(outcome, error=error, lost=lost, refused=refused)


def _nobody(up: bool, why: str) -> None:
    """Nobody listens yet."""
