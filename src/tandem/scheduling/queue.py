"""Where texts wait: in one queue for all devices, or bound to one of them, as the dispatcher will have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tandem.scheduling.base import Item
from tandem.scheduling.device import Device
from tandem.scheduling.dispatch import Dispatcher
from tandem.scheduling.window import Window
from tandem.types import Output


class Queue:
    """``shared``: the windows that all devices take from; each device has its own beside them."""

    def __init__(self, devices: Sequence[Device], dispatcher: Dispatcher) -> None:
        self.shared = {output: Window() for output in Output}
        self._devices = devices
        self._dispatcher = dispatcher

    def __bool__(self) -> bool:
        return any(map(len, self._windows()))

    def place(self, item: Item, now: float) -> None:
        """A text has come, or lost the device that it was bound to."""
        device = self._dispatcher.assign(item.length, self._devices, now)
        (self.shared if device is None else device.windows)[item.group.output].add(item)

    def place_anew(self, device: Device, now: float) -> None:
        """What is bound to ``device`` is placed again."""
        for window in device.windows.values():
            for item in window.take(0, len(window)):
                self.place(item, now)

    def open_to(self, device: Device) -> list[tuple[Window, Output]]:
        """The windows that ``device`` may take from and that hold something, that of the most urgent text first."""
        found = [
            (window, output)
            for windows in (self.shared, device.windows)
            for output, window in windows.items()
            if window.lengths
        ]
        if len(found) > 1:
            found.sort(key=lambda pair: pair[0].anchor_rank())
        return found

    def fills(self, device: Device, tokens: int) -> bool:
        """Whether one of the windows that ``device`` may take from holds so many tokens."""
        return any(window.total_tokens >= tokens for window, _ in self.open_to(device))

    def texts(self) -> int:
        return sum(map(len, self._windows()))

    def tokens(self) -> int:
        return sum(window.total_tokens for window in self._windows())

    def due_tokens(self) -> list[int]:
        """By class, those of texts that have a deadline."""
        return [sum(column) for column in zip(*(window.dues.tokens for window in self._windows()), strict=True)]

    def clear(self) -> list[Item]:
        """Take out and return all that waits."""
        return [item for window in self._windows() for item in window.take(0, len(window))]

    def _windows(self) -> Iterator[Window]:
        yield from self.shared.values()
        for device in self._devices:
            yield from device.windows.values()
