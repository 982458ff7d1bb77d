"""How far a job is, for people: a bar on a terminal, a line now and then in a log, or nothing."""

from __future__ import annotations

from typing import Protocol, TextIO

from tqdm import tqdm

from tandem.clock import Clock

_LINE_EVERY_S = 10.0


class Progress(Protocol):
    """``phase`` begins a new count, ``advance`` adds to it. ``note`` is news, ``warn`` is shown whatever happens."""

    def phase(self, name: str, total: int | None, done: int = 0) -> None: ...

    def advance(self, n: int) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def close(self) -> None: ...


class Quiet:
    """Warnings alone."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def phase(self, name: str, total: int | None, done: int = 0) -> None:
        """Not shown."""

    def advance(self, n: int) -> None:
        """Not shown."""

    def note(self, message: str) -> None:
        """Not shown."""

    def warn(self, message: str) -> None:
        self._out.write(message + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is open."""


class Lines:
    """One line about every ten seconds, for logs."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out = out
        self._clock = clock
        self._name = ""
        self._total: int | None = None
        self._first = self._done = 0
        self._started_s = self._shown_s = clock.now()

    def phase(self, name: str, total: int | None, done: int = 0) -> None:
        self._name, self._total = name, total
        self._first = self._done = done
        self._started_s = self._shown_s = self._clock.now()

    def advance(self, n: int) -> None:
        self._done += n
        now = self._clock.now()
        if now - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now
            self.warn(self._line(now))

    def note(self, message: str) -> None:
        self.warn(message)

    def warn(self, message: str) -> None:
        self._out.write(message + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is open."""

    def _line(self, now: float) -> str:
        rate = (self._done - self._first) / max(now - self._started_s, 1e-9)
        count = f"{self._done:,}" if self._total is None else f"{self._done:,} of {self._total:,}"
        left = ""
        if self._total is not None and rate > 0:
            left = f", {duration((self._total - self._done) / rate)} left"
        return f"{self._name}: {count} texts, {rate:,.0f} texts/s{left}"


class Bar:
    """A bar that moves, for a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bar: tqdm[None] | None = None

    def phase(self, name: str, total: int | None, done: int = 0) -> None:
        self.close()
        # smoothing 0.1: windows take about a second each and the time left should not jump with every one.
        self._bar = tqdm(
            desc=name, total=total, initial=done, unit=" texts", file=self._out, smoothing=0.1, dynamic_ncols=True
        )

    def advance(self, n: int) -> None:
        if self._bar is not None:
            self._bar.update(n)

    def note(self, message: str) -> None:
        self.warn(message)

    def warn(self, message: str) -> None:
        tqdm.write(message, file=self._out)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``: as exact as such a prediction deserves."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
