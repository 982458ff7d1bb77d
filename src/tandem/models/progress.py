"""How a download tells what it does: a bar on a terminal, a few plain lines in a log."""

from __future__ import annotations

from typing import Protocol, TextIO

from tandem.clock import Clock

_BAR_EVERY_S = 0.1
_LINE_EVERY_S = 5.0
_CLEAR_LINE = "\r\x1b[K"


class Progress(Protocol):
    """Told of events and of bytes; never asked anything. Calls come from one thread at a time."""

    def note(self, message: str) -> None:
        """One sentence worth a line."""
        ...

    def transfer(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """``done_bytes`` of ``label`` are there; ``total_bytes`` is None where the sender did not say."""
        ...


class Silent:
    """Says nothing."""

    def note(self, message: str) -> None:
        return

    def transfer(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        return


class StreamProgress:
    """A bar that redraws itself where ``stream`` is a terminal; elsewhere a line every five seconds and at the end."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._draws = stream.isatty()
        self._label = ""
        self._started_s = 0.0
        self._shown_s = 0.0
        self._finished = True

    def note(self, message: str) -> None:
        self._write(f"{_CLEAR_LINE}{message}\n" if self._draws else f"{message}\n")

    def transfer(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        now = self._clock.now()
        if label != self._label or (self._finished and done_bytes != total_bytes):
            self._label, self._started_s, self._shown_s, self._finished = label, now, now, False
        last = done_bytes == total_bytes
        due = now - self._shown_s >= (_BAR_EVERY_S if self._draws else _LINE_EVERY_S)
        if self._finished or not (last or due):
            return
        self._shown_s, self._finished = now, last
        line = _line(label, done_bytes, total_bytes, now - self._started_s)
        if self._draws:
            self._write(f"{_CLEAR_LINE}{line}" + ("\n" if last else ""))
        else:
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def readable(size_bytes: float) -> str:
    """``612 B``, ``24.3 kB``, ``90.9 MB``, ``2.3 GB``: powers of 1000, as on disks and in the hub."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _line(label: str, done_bytes: int, total_bytes: int | None, elapsed_s: float) -> str:
    speed = done_bytes / elapsed_s if elapsed_s > 0 else 0.0
    rate = f", {readable(speed)}/s" if speed else ""
    if not total_bytes:
        return f"{label}: {readable(done_bytes)}{rate}"
    left_s = (total_bytes - done_bytes) / speed if speed else 0.0
    left = f", {left_s:.0f} s left" if left_s >= 1 else ""
    return f"{label}: {readable(done_bytes)} of {readable(total_bytes)} ({done_bytes / total_bytes:.0%}){rate}{left}"
