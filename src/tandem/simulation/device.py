"""A simulated device: a worker's queue, its slots, and the time that a batch takes by its profile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec
import numpy as np

from tandem.batching.packing import arrange
from tandem.scheduling.base import Batch, packing_of
from tandem.scheduling.device import Device
from tandem.simulation.cores import Cores, Run
from tandem.simulation.profile import DeviceProfile, HostProfile
from tandem.types import Outcome, Packing

_DRAWN = 4096
# A slot that had nothing to do for so long finds its caches cold.
_COLD_S = 1e-3


class DeviceStats(msgspec.Struct):
    """Over a whole run: ``busy_s`` summed over slots, of what runs there at its own speed."""

    batches: int = 0
    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    busy_s: float = 0.0


class Started:
    """A batch in a slot."""

    __slots__ = ("batch", "device", "padded_tokens", "slot", "squares", "started_s", "tokens")

    def __init__(self, device: SimulatedDevice, batch: Batch, slot: int, started_s: float) -> None:
        self.device = device
        self.batch = batch
        self.slot = slot
        self.started_s = started_s
        self.tokens = self.padded_tokens = self.squares = 0


class SimulatedDevice:
    """Runs batches as a worker with ``profile.slots`` threads does. ``seed`` decides how each batch's time scatters;
    None takes the mean. A device that shares its cores with the server is dragged down by it: ``host`` says how."""

    def __init__(
        self, device: Device, profile: DeviceProfile, cores: Cores, seed: list[int] | None, host: HostProfile | None
    ) -> None:
        self.device = device
        self.profile = profile
        self.cores = cores
        self.stats = DeviceStats()
        self._inbox: deque[Batch] = deque()
        self._free = list(range(profile.slots))
        self._shapes: list[tuple[int, int] | None] = [None] * profile.slots
        self._ended_s = [0.0] * profile.slots
        self._factors = _factors(profile, seed)
        self._hand_s, self._drag = (host.hand_s, host.drag) if host else (0.0, 1.0)

    def submit(self, batch: Batch, now: float) -> None:
        if self._free:
            self._start(batch, now)
        else:
            self._inbox.append(batch)

    def end(self, started: Started, now: float) -> Outcome:
        """A slot's batch has ended; the next of the queue begins."""
        stats = self.stats
        n = len(started.batch.items)
        stats.batches += 1
        stats.texts += n
        stats.tokens += started.tokens
        stats.padded_tokens += started.padded_tokens
        stats.busy_s += now - started.started_s
        self._free.append(started.slot)
        self._ended_s[started.slot] = now
        if self._inbox:
            self._start(self._inbox.popleft(), now)
        return Outcome(
            self.device.id,
            n,
            started.tokens,
            started.padded_tokens,
            started.squares,
            started.started_s,
            now,
        )

    def _start(self, batch: Batch, now: float) -> None:
        started = Started(self, batch, self._free.pop(), now)
        lengths = [item.length for item in batch.items]
        started.tokens = sum(lengths)
        started.squares = sum([length * length for length in lengths])
        rows, width = self._layout(batch, lengths, started.tokens)
        started.padded_tokens = rows * width
        seconds = self.profile.cost.seconds(started.padded_tokens, started.squares, len(lengths))
        slot = started.slot
        if self._shapes[slot] != (rows, width) or now - self._ended_s[slot] > _COLD_S:
            self._shapes[slot] = (rows, width)
            seconds += self.profile.cold_s
        self.cores.start(Run(seconds * self._drag * next(self._factors) + self._hand_s, started), now)

    def _layout(self, batch: Batch, lengths: list[int], tokens: int) -> tuple[int, int]:
        packing = packing_of(self.profile.packing, batch.output)
        if packing is Packing.FLAT:
            return 1, tokens
        layout = arrange(lengths, packing, batch.width, self.profile.max_width)
        return layout.rows, layout.width


def _factors(profile: DeviceProfile, seed: list[int] | None) -> Iterator[float]:
    if seed is None or len(profile.residuals) == 1:
        while True:
            yield 1.0
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, 1, len(profile.residuals))
    while True:
        yield from np.interp(rng.random(_DRAWN), steps, profile.residuals).tolist()
