"""Reads that meet share a call, and when answers fail to come, few wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain, count
from typing import TypeAlias

import msgspec

from tandem.caching.base import Entry, Key
from tandem.caching.calls import STALL_S
from tandem.caching.pace import Pace
from tandem.clock import Clock

Answer: TypeAlias = asyncio.Future[list[Entry | None]]
Read = Callable[[list[Key]], Awaitable[list[Entry | None]]]


class GatherOptions(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``calls`` at a time, each of at most ``keys`` keys; so many ``doubters`` wait for an answer that is
    late."""

    calls: int = 2
    keys: int = 256
    doubters: int = 3


class _Part(msgspec.Struct, frozen=True, eq=False):
    """A run of one caller's keys."""

    number: int
    keys: Sequence[Key]
    answer: Answer


class Gather:
    """Hands what is asked to ``read``, so many calls at a time; while they are under way, the rest gathers.

    ``read`` must not raise, and answers for each key. A caller who leaves takes no one's answer along. One watch over
    all, as a timer for each caller would cost more than its read: when nothing has come for ``pace.patience_s`` though
    something was asked, the oldest few go on waiting and all others, also those who come now, are answered with None.
    """

    def __init__(self, read: Read, options: GatherOptions, pace: Pace, clock: Clock) -> None:
        self._read = read
        self._options = options
        self._pace = pace
        self._clock = clock
        self._asked: deque[_Part] = deque()
        self._open: dict[_Part, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count()
        self._doubting = False
        self._moved_s = self._excused_s = 0.0
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
        else:
            if not self._open:
                self._moved_s = self._clock.now()
            self._asked.extend(parts)
            self._open.update(dict.fromkeys(parts))
            self._depart()
            self._look_in(self._pace.patience_s)
        return [part.answer for part in parts]

    def release(self) -> None:
        """Answer those whose turn has not come with None for each key."""
        while self._asked:
            self._settle(self._asked.popleft(), [])

    async def close(self) -> None:
        """End what is under way; all are answered. Idempotent."""
        self.release()
        self._look_no_more()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        # A call that was ended before it began has answered nobody.
        for part in list(self._open):
            self._settle(part, [])

    def _depart(self) -> None:
        while self._asked and len(self._tasks) < self._options.calls:
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
            task = asyncio.get_running_loop().create_task(self._call(together))
            self._tasks.add(task)
            task.add_done_callback(self._landed)

    async def _call(self, together: list[_Part]) -> None:
        found: list[Entry | None] = []
        try:
            found = await self._read(list(chain.from_iterable(part.keys for part in together)))
        finally:
            self._moved_s = self._clock.now()
            self._doubting = False
            start = 0
            for part in together:
                self._settle(part, found[start : start + len(part.keys)])
                start += len(part.keys)
            if not self._open:
                self._look_no_more()

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._depart()

    def _look_in(self, seconds: float) -> None:
        if self._watch is None and self._open:
            look = partial(self._look, self._clock.now() + seconds)
            self._watch = asyncio.get_running_loop().call_later(seconds, look)

    def _look_no_more(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self, due_s: float) -> None:
        self._watch = None
        now, patience_s = self._clock.now(), self._pace.patience_s
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
        self._look_in(left_s)

    def _give_up(self, part: _Part) -> None:
        if not part.answer.done():
            self.late += len(part.keys)
        self._settle(part, [])

    def _settle(self, part: _Part, found: list[Entry | None]) -> None:
        self._open.pop(part, None)
        if not part.answer.done():
            part.answer.set_result(found or [None] * len(part.keys))
