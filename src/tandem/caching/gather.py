"""Reads that meet share a call, and when answers fail to come, few wait for them.

No call is a task and none has a timer of its own: for a row that is 20 microseconds away each would cost as much again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, count
from math import inf
from typing import TypeAlias

import msgspec

from tandem.caching.base import Entry, Key
from tandem.caching.calls import STALL_S
from tandem.caching.pace import Pace
from tandem.caching.rack import Found
from tandem.clock import Clock

Answer: TypeAlias = asyncio.Future[list[Entry | None]]
Read = Callable[[Sequence[Key]], Awaitable[Found]]
Ended = Callable[[asyncio.Future[Found] | None, float], list[Entry | None]]
"""Told how each call ended, None for one that was too late, and how many seconds it took. Returns an entry or None for
each key, or nothing at all where there is none."""


class GatherOptions(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``calls`` at a time, each of at most ``keys`` keys and ended after ``timeout_s``; so many ``doubters``
    wait for an answer that is late."""

    timeout_s: float
    calls: int = 2
    keys: int = 256
    doubters: int = 3


class _Part(msgspec.Struct, frozen=True, eq=False):
    """A run of one caller's keys."""

    number: int
    keys: Sequence[Key]
    answer: Answer


class _Call:
    """One that is under way."""

    __slots__ = ("begun_s", "due_s", "excused", "parts")

    def __init__(self, parts: list[_Part], begun_s: float, due_s: float) -> None:
        self.parts = parts
        self.begun_s = begun_s
        self.due_s = due_s
        self.excused = False


class Gather:
    """Hands what is asked to ``read``, so many calls at a time; while they are under way, the rest gathers.

    A caller who leaves takes no one's answer along. One watch over all, as a timer for each caller would cost more than
    its read: it ends calls that are too late, and when nothing has come for ``pace.patience_s`` though something was
    asked, the oldest few go on waiting and all others, also those who come now, are answered with None.
    """

    def __init__(self, read: Read, ended: Ended, options: GatherOptions, pace: Pace, clock: Clock) -> None:
        self._read = read
        self._ended = ended
        self._options = options
        self._pace = pace
        self._clock = clock
        self._asked: deque[_Part] = deque()
        self._open: dict[_Part, None] = {}
        self._calls: dict[asyncio.Future[Found], _Call] = {}
        self._leaving: set[asyncio.Future[Found]] = set()
        self._numbers = count()
        self._doubting = False
        self._moved_s = self._excused_s = self._watch_s = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self.late = 0
        """Keys that were given up before their answer came."""

    def ask(self, keys: Sequence[Key]) -> list[Answer]:
        """One answer for each run of so many keys as a call may have; they may come in any order."""
        loop, number, most = asyncio.get_running_loop(), next(self._numbers), self._options.keys
        parts = [_Part(number, keys[i : i + most], loop.create_future()) for i in range(0, len(keys), most)]
        if self._doubting:
            for part in parts:
                self._give_up(part)
        elif parts:
            if not self._open:
                self._moved_s = self._clock.now()
            self._asked.extend(parts)
            self._open.update(dict.fromkeys(parts))
            self._depart()
            self._look_in(min(self._pace.patience_s, self._options.timeout_s))
        return [part.answer for part in parts]

    def release(self) -> None:
        """Answer those whose turn has not come with None for each key."""
        while self._asked:
            self._settle(self._asked.popleft(), [])

    async def close(self) -> None:
        """End what is under way; all are answered. Idempotent."""
        self.release()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for future in self._calls:
            future.cancel()
        if ending := [*self._calls, *self._leaving]:
            await asyncio.wait(ending, timeout=self._options.timeout_s)
        for part in list(self._open):
            self._settle(part, [])

    def _depart(self) -> None:
        while self._asked and len(self._calls) < self._options.calls:
            together: list[_Part] = []
            size = 0
            while self._asked and (not together or size + len(self._asked[0].keys) <= self._options.keys):
                part = self._asked.popleft()
                # Who has left, or was given up, need not be asked for.
                if not part.answer.done():
                    together.append(part)
                    size += len(part.keys)
                else:
                    self._open.pop(part, None)
            if not together:
                return
            first = together[0].keys
            keys = first if len(together) == 1 else list(chain.from_iterable(part.keys for part in together))
            now = self._clock.now()
            future = asyncio.ensure_future(self._read(keys))
            self._calls[future] = _Call(together, now, now + self._options.timeout_s)
            future.add_done_callback(self._landed)

    def _landed(self, future: asyncio.Future[Found]) -> None:
        call = self._calls.pop(future, None)
        if call is None:
            self._leaving.discard(future)
            if not future.cancelled():
                # Looked at here, as nobody else does any more.
                future.exception()
        else:
            self._end(call, future)

    def _end(self, call: _Call, future: asyncio.Future[Found] | None) -> None:
        """None: it was too late."""
        self._moved_s = self._clock.now()
        self._doubting = False
        found: list[Entry | None] = []
        try:
            if future is None or not future.cancelled():
                found = self._ended(future, self._moved_s - call.begun_s)
        finally:
            start = 0
            for part in call.parts:
                self._settle(part, found[start : start + len(part.keys)])
                start += len(part.keys)
            self._depart()

    def _look_in(self, seconds: float) -> None:
        """At the latest. A watch stays when there is nothing to look at any more: the next read wants one again."""
        if not (self._open or self._calls):
            return
        due_s = self._clock.now() + seconds
        if self._watch is not None:
            if self._watch_s <= due_s:
                return
            self._watch.cancel()
        self._watch_s = due_s
        self._watch = asyncio.get_running_loop().call_later(seconds, self._look, due_s)

    def _look(self, due_s: float) -> None:
        self._watch = None
        now, patience_s = self._clock.now(), self._pace.patience_s
        self._look_at_calls(now)
        left_s = self._moved_s + patience_s - now
        if now - due_s > STALL_S and self._excused_s != self._moved_s:
            # An event loop that was late has not read yet what may have come: that time counts for nothing. Once; where
            # cores are so busy that it is late each time, nobody would ever be given up.
            left_s, self._excused_s = patience_s, self._moved_s
        if left_s <= 0.0 and self._open:
            self._doubting = True
            oldest = list(dict.fromkeys(part.number for part in self._open))[: self._options.doubters]
            for part in [part for part in self._open if part.number not in oldest]:
                self._give_up(part)
            left_s = patience_s
        next_s = min((call.due_s for call in self._calls.values()), default=inf) - now
        self._look_in(max(0.0, min(left_s, next_s)))

    def _look_at_calls(self, now: float) -> None:
        """End those that are too late; one that could not be read because the event loop stood still gets that time
        back, once: to give up on it would be to blame who sent it."""
        for future, call in list(self._calls.items()):
            late_s = now - call.due_s
            if late_s > STALL_S and not call.excused:
                call.excused, call.due_s = True, now + min(late_s, self._options.timeout_s)
            elif late_s >= 0.0 and not future.done():
                del self._calls[future]
                self._leaving.add(future)
                # With it goes what an answer would still come through: nobody else may read that answer.
                future.cancel()
                self._end(call, None)

    def _give_up(self, part: _Part) -> None:
        if not part.answer.done():
            self.late += len(part.keys)
        self._settle(part, [])

    def _settle(self, part: _Part, found: list[Entry | None]) -> None:
        self._open.pop(part, None)
        if not part.answer.done():
            part.answer.set_result(found or [None] * len(part.keys))
