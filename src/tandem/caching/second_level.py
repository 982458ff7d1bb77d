"""What every second level has in common: no request pays for a store that is ill.

A read has one deadline; the first that misses it opens a breaker, and while that is open every read is a miss at once.
Probes are made beside the requests, not by them. At most three requests wait for a late answer; the others turn to
computing after the time that an answer usually takes. Writes are off the path: they wait in a bounded backlog, and a
store that answers but refuses to be written to goes on being read.

Reads that meet share a call: while some are under way, what is asked gathers for the next. Without that, sixty-four
callers would be sixty-four commands, each dearer for Python than the rows in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from tandem.caching.backlog import Backlog
from tandem.caching.base import Entry, Key
from tandem.caching.breaker import Breaker
from tandem.caching.calls import Calls
from tandem.caching.gather import Gather, GatherOptions
from tandem.caching.pace import Pace
from tandem.caching.rack import Found, LevelOptions, Rack
from tandem.clock import Clock
from tandem.errors import ConfigError

log = logging.getLogger("tandem.caching")

# Nobody waits for a write.
_WRITE_PATIENCE = 4


class SecondLevel:
    """An ``EntryStore`` over a rack. Of one event loop."""

    def __init__(self, name: str, rack: Rack, options: LevelOptions, clock: Clock) -> None:
        """Raises ConfigError for options that make no sense."""
        if options.timeout_s <= 0 or options.backlog_rows < 0:
            raise ConfigError(f"{rack.subject} needs a timeout over 0, and no negative backlog")
        self.name = name
        self._rack = rack
        self._options = options
        self._clock = clock
        self._breaker = Breaker(rack.subject, options.breaker)
        self._writing = Breaker(f"writing to {rack.subject}", options.breaker)
        # Not less, however quick it is as a rule: where cores are busy a healthy store hesitates too.
        self._pace = Pace(options.timeout_s / 3, options.timeout_s * 2 / 3)
        gathering = GatherOptions(calls=options.calls, timeout_s=options.timeout_s)
        self._gather = Gather(rack.read, self._read, gathering, self._pace, clock)
        self._backlog = Backlog(self._write, options.backlog_rows, options.batch_rows)
        self._counts: Counter[str] = Counter()
        self._calls = Calls(clock)
        self._write_s = _WRITE_PATIENCE * options.timeout_s
        self._probing: asyncio.Task[None] | None = None
        self._closed = False

    async def get(self, keys: Sequence[Key]) -> list[Entry | None]:
        found: list[Entry | None] = []
        if self._serves():
            for answer in self._gather.ask(keys):
                found += await answer
        else:
            self._counts["skipped"] += len(keys)
            found = [None] * len(keys)
        hits = sum(entry is not None for entry in found)
        self._counts["hits"] += hits
        self._counts["misses"] += len(keys) - hits
        return found

    async def put(self, keys: Sequence[Key], entries: Sequence[Entry]) -> None:
        if self._serves():
            self._backlog.add(keys, entries)
        else:
            self._counts["dropped"] += len(keys)

    async def ready(self) -> None:
        """Wait until it can be used, or is known not to be usable; before that all are misses. Nobody needs to."""
        await self._rack.ready()

    async def flush(self) -> None:
        """Wait until nothing waits to be written."""
        await self._backlog.flushed()

    async def clear(self) -> str:
        await self.flush()
        why = "is closed" if self._closed else self._rack.trouble()
        cursor = 0 if why else -1
        try:
            while cursor:
                cursor, gone = await self._calls.within(self._write_s, self._rack.clear(max(cursor, 0)))
                self._counts["cleared"] += gone
        except self._rack.faults as error:
            self._failed(error)
            why = _late(self._write_s) if isinstance(error, TimeoutError) else self._rack.words(error)
        if why:
            log.warning("%s could not be cleared, as it %s", self._rack.subject, why)
        return why

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._backlog.close(self._write_s)
        await self._gather.close()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})
        await self._calls.close(self._options.timeout_s)
        try:
            await self._calls.within(self._write_s, self._rack.close())
        except self._rack.faults as error:
            log.info("%s was left without a goodbye, as it %s", self._rack.subject, self._words(error))

    def statistics(self) -> dict[str, float]:
        """Keys looked up: ``hits`` and ``misses``; of these misses, ``skipped`` were not asked for, ``late`` came too
        late, ``rejected`` were there but wrong (``rejected_*`` says in what). Rows to write: ``written``, ``refused``
        by the store, ``unfit`` (not finite), ``dropped`` unwritten. ``errors`` of calls; ``breaker_opened`` so often,
        ``breaker_open`` now, ``breaker_half_open`` while a probe is under way.
        """
        names = ("hits", "misses", "skipped", "rejected", "written", "refused", "unfit", "dropped", "errors")
        counts = {name: float(self._counts[name]) for name in names} | {k: float(v) for k, v in self._counts.items()}
        counts["late"] = float(self._gather.late)
        counts["dropped"] += self._backlog.dropped
        counts["backlog_rows"] = float(len(self._backlog))
        counts["breaker_opened"] = float(self._breaker.opened)
        counts["breaker_open"] = float(not self._breaker.closed)
        counts["breaker_half_open"] = float(self._breaker.is_half_open)
        return counts | self._rack.statistics()

    def state(self) -> str:
        now, trouble = self._clock.now(), self._rack.trouble()
        if self._closed or trouble:
            return "closed" if self._closed else trouble
        if not self._breaker.closed:
            return f"breaker open: {self._breaker.state(now)}"
        return "ok" if self._writing.closed else f"reads only: {self._writing.state(now)}"

    def _serves(self) -> bool:
        """Whether to ask at all; sees to it that a breaker that is open is tried."""
        if self._closed or self._rack.trouble():
            return False
        if not self._breaker.closed and self._breaker.probe(self._clock.now()):
            self._probing = asyncio.get_running_loop().create_task(self._probe())
        return self._breaker.closed

    def _read(self, call: asyncio.Future[Found] | None, took_s: float) -> list[Entry | None]:
        """A read has ended; None: it was too late."""
        try:
            if call is None:
                raise TimeoutError
            found = call.result()
        except self._rack.faults as error:
            self._failed(error)
            return []
        self._pace.took(took_s)
        if found.rejected:
            self._counts.update(f"rejected_{word}" for word in found.rejected)
            self._counts["rejected"] += len(found.rejected)
        return found.entries

    async def _probe(self) -> None:
        try:
            await self._calls.within(self._options.timeout_s, self._rack.read([bytes(16)]))
            self._breaker.succeeded(self._clock.now())
        except self._rack.faults as error:
            self._failed(error)
        except asyncio.CancelledError:
            self._breaker.give_up()
            raise

    async def _write(self, keys: list[Key], entries: list[Entry]) -> None:
        # A write is its own probe: nobody waits for it.
        if not self._breaker.closed or not (self._writing.closed or self._writing.probe(self._clock.now())):
            self._counts["dropped"] += len(keys)
            return
        try:
            kept = await self._calls.within(self._write_s, self._rack.write(keys, entries))
        except TimeoutError:
            # No word on reads: on a disk, another server may hold the lock that writers take.
            self._counts.update(dropped=len(keys), errors=1)
            self._writing.failed(_late(self._write_s), self._clock.now())
            return
        except self._rack.faults as error:
            self._counts["dropped"] += len(keys)
            self._writing.give_up()
            self._failed(error)
            return
        self._counts.update(written=kept.written, unfit=kept.unfit, refused=len(kept.refused))
        if kept.refused:
            self._writing.failed(kept.refused[0], self._clock.now())
        else:
            self._writing.succeeded(self._clock.now())

    def _failed(self, error: Exception) -> None:
        self._counts["errors"] += 1
        self._breaker.failed(self._words(error), self._clock.now())
        if not self._breaker.closed:
            self._gather.release()

    def _words(self, error: Exception) -> str:
        return _late(self._options.timeout_s) if isinstance(error, TimeoutError) else self._rack.words(error)


def _late(seconds: float) -> str:
    return f"did not answer within {1000 * seconds:.4g} ms"
