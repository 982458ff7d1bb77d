"""The scheduler's core, its policies and dispatchers, run by a virtual clock: what ``scheduling/loop.py`` does with
workers, this does with simulated devices.

Time goes from event to event: a request comes, a batch or a job of the server ends, the timer rings. The core is handed
the time of the event, as the loop hands it the clock's.
"""

from __future__ import annotations

import math
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError, DeadlineExceeded
from tandem.scheduling.base import Batch, Group, Item
from tandem.scheduling.core import SchedulerCore, drop
from tandem.scheduling.device import Device, look_again_s
from tandem.scheduling.dispatch import DISPATCHERS, Dispatcher
from tandem.simulation.base import Workload
from tandem.simulation.cores import Cores, Serial
from tandem.simulation.device import DeviceStats, SimulatedDevice
from tandem.simulation.fleet import Member, build_devices
from tandem.simulation.profile import HostProfile
from tandem.simulation.ticket import Ticket
from tandem.types import Output, Priority, TokenIds

# As in scheduling/loop.py.
_SOONEST_S, _LATEST_S = 0.001, 1.0
_ROW = np.empty(0, np.float32)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """``latency_objective_s``: what the scheduler is told to keep to, 0 for nothing. ``timeout_s``: the requests' own
    deadline, 0 for none. ``max_queue_s``: the predicted wait from which on a request is refused, 0 for none.
    ``host``: what the server itself costs, None leaves it out. ``client``: the callers run on the server's cores and
    cost what the host's profile says. ``callers``: so many send their next request when the last is answered, whatever
    the workload's times; 0 for an open loop. ``scatter`` off: each batch takes its mean time."""

    dispatcher: str = "earliest_finish"
    policy: str = "memory_aware"
    latency_objective_s: float = 0.1
    timeout_s: float = 0.0
    max_queue_s: float = 30.0
    host: HostProfile | None = None
    client: bool = False
    callers: int = 0
    scatter: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("latency_objective_s", "timeout_s", "max_queue_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be 0 or more seconds, got {getattr(self, name)}")
        if self.client and self.host is None:
            raise ConfigError("callers on the server's cores need a profile of the host")


class Run(msgspec.Struct, frozen=True):
    """What became of the requests. Seconds, float64 [n]: ``finished_s``, NaN for one that was refused or expired;
    ``waits_s``, from the queue to the start of the batch. ``stats``: of ``device_ids``, in their order.
    ``host_busy_s``: of the server's own thread. ``ended_s``: when nothing ran any more."""

    finished_s: NDArray[np.float64]
    waits_s: NDArray[np.float64]
    refused: int
    expired: int
    device_ids: tuple[str, ...]
    stats: tuple[DeviceStats, ...]
    host_busy_s: float
    ended_s: float


class Driver:
    """One run over one workload."""

    def __init__(
        self,
        fleet: Sequence[Member],
        workload: Workload,
        options: Options,
        make_core: Callable[[Sequence[Device], Dispatcher], SchedulerCore] = SchedulerCore,
    ) -> None:
        devices = build_devices(fleet, options.policy, options.latency_objective_s)
        self._devices: dict[str, SimulatedDevice] = {}
        self.core = make_core(devices, DISPATCHERS.get(options.dispatcher)())
        self._options = options
        self._host = options.host
        wake_s = options.host.wake_s if options.host else 0.0
        self._server, self._client = Serial(wake_s), Serial(wake_s)
        self._cores: list[Cores] = []
        self._home = self._build(fleet, devices)
        self._callers = options.callers
        self._times: list[float] = [0.0] * min(len(workload), self._callers) or workload.times_s.tolist()
        self._lengths: list[int] = workload.lengths.tolist()
        self._texts: dict[int, TokenIds] = {}
        self._answered: list[Ticket] = []
        self._deadlines: deque[Item] = deque()
        self._finished = np.full(len(workload), np.nan)
        self._waits = np.full(len(workload), np.nan)
        self._refused = 0
        self._timer_s = math.inf
        self._due = False

    def run(self) -> Run:
        """All requests, to the last one's end."""
        times, cores, arrived, ended_s = self._times, self._cores, 0, 0.0
        while True:
            now = times[arrived] if arrived < len(times) else math.inf
            soonest: Cores | None = None
            for some in cores:
                if some.next_s < now:
                    now, soonest = some.next_s, some
            if self._timer_s < now:
                now = self._timer_s
                self._timer_s = math.inf
                self._pump(now)
            elif soonest is not None:
                self._ended(soonest, now)
                ended_s = now
            elif arrived < len(times):
                self._arrive(arrived, now)
                arrived += 1
            else:
                return self._result(ended_s)

    def _build(self, fleet: Sequence[Member], devices: Sequence[Device]) -> Cores:
        """The simulated devices; returns the cores on which the server's threads run: the first device's that shares
        its own with them, else cores that nobody else uses."""
        serials = (self._server, self._client)
        home: Cores | None = None
        for member, device in zip(fleet, devices, strict=True):
            shares = home is None and self._host is not None and member.profile.cores > 0
            cores = Cores(member.profile, serials if shares else ())
            home = cores if shares else home
            # By name: a device scatters alike whatever stands beside it, or fleets could not be compared.
            seed = [self._options.seed, 4, crc32(member.id.encode())] if self._options.scatter else None
            self._devices[member.id] = SimulatedDevice(
                device, member.profile, cores, seed, self._host if shares else None
            )
            self._cores.append(cores)
        if home is None:
            home = Cores(None, serials)
            self._cores.append(home)
        return home

    def _arrive(self, index: int, now: float) -> None:
        if self._host is None:
            self._enter(index, now)
            self._pump(now)
        elif self._options.client:
            self._home.put(self._client, self._host.client_s / 2, (self._sent, index), now)
        else:
            self._sent(index, now)

    def _sent(self, index: int, now: float) -> None:
        assert self._host is not None
        work_s = self._host.request_s + self._host.token_s * self._lengths[index]
        self._home.put(self._server, work_s, (self._received, index), now)

    def _received(self, index: int, now: float) -> None:
        # Texts that come in one turn of the event loop find each other before a batch is cut.
        self._enter(index, now)
        self._due = True

    def _enter(self, index: int, now: float) -> None:
        limit_s = self._options.max_queue_s
        if limit_s and self.core.waits and self.core.backlog().predicted_s > limit_s:
            self._refused += 1
            self._ask_again(now)
            return
        length = self._lengths[index]
        ids = self._texts.get(length)
        if ids is None:
            ids = self._texts[length] = [0] * length
        ticket = Ticket(index, self._answered)
        group = Group(1, cast("Future[None]", ticket), Priority.NORMAL, Output.POOLED)
        item = Item(group, 0, ids, 0)
        if self._options.timeout_s:
            group.deadline_s = self._times[index] + self._options.timeout_s
            self._deadlines.append(item)
        self.core.add((item,), now)

    def _pump(self, now: float) -> None:
        self._due = False
        if self._deadlines:
            self._expire(now)
        for device, batch in self.core.batches(now):
            self._devices[device.id].submit(batch, now)
        if (
            len(self._devices) > 1
            and self._timer_s == math.inf
            and self.core.waits
            and any(map(_idle, self.core.devices))
        ):
            self._timer_s = now + min(_LATEST_S, max(_SOONEST_S, look_again_s(self.core.devices, now)))

    def _expire(self, now: float) -> None:
        """Callers whose deadline has passed leave, as the engine's timeout makes them."""
        deadlines = self._deadlines
        while deadlines and cast(float, deadlines[0].group.deadline_s) <= now:
            item = deadlines.popleft()
            if not item.group.departed:
                item.group.fail(DeadlineExceeded("its deadline passed"))
                drop((item,))
                self._ask_again(now)

    def _ended(self, cores: Cores, now: float) -> None:
        runs, jobs = cores.ended(now)
        for run in runs:
            started = run.what
            outcome = started.device.end(started, now)
            if self._host is None:
                self._settle((started, outcome), now)
            else:
                self._home.put(self._server, self._host.batch_s, (self._settle, (started, outcome)), now)
        for function, what in jobs:
            function(what, now)
        if self._due and not self._server.jobs:
            self._pump(now)

    def _settle(self, what: Any, now: float) -> None:
        started, outcome = what
        batch: Batch = started.batch
        for item in batch.items:
            item.group.settle(item.index, _ROW, outcome.started_s - item.arrived_s, outcome.seconds)
            if item.group.pending == 0:
                self._waits[cast(Ticket, item.group.future).index] = outcome.started_s - item.arrived_s
        self.core.finish(started.device.device, batch, outcome)
        self._pump(now)
        answered = self._answered[:]
        self._answered.clear()
        for ticket in answered:
            if self._host is None:
                self._finish(ticket.index, now)
            else:
                self._home.put(self._server, self._host.answer_s, (self._sent_back, ticket.index), now)

    def _sent_back(self, index: int, now: float) -> None:
        if self._options.client and self._host is not None:
            self._home.put(self._client, self._host.client_s / 2, (self._finish, index), now)
        else:
            self._finish(index, now)

    def _finish(self, index: int, now: float) -> None:
        self._finished[index] = now
        self._ask_again(now)

    def _ask_again(self, now: float) -> None:
        """A caller of a closed loop has his answer, whatever it was."""
        if self._callers and len(self._times) < len(self._lengths):
            self._times.append(now)

    def _result(self, ended_s: float) -> Run:
        finished = self._finished
        if self._options.timeout_s:
            finished = np.where(finished <= np.array(self._times) + self._options.timeout_s, finished, np.nan)
        lost = int(np.isnan(finished).sum())
        return Run(
            finished_s=finished,
            waits_s=self._waits,
            refused=self._refused,
            expired=lost - self._refused,
            device_ids=tuple(self._devices),
            stats=tuple(device.stats for device in self._devices.values()),
            host_busy_s=self._server.busy_s,
            ended_s=ended_s,
        )


def simulate(fleet: Sequence[Member], workload: Workload, options: Options) -> Run:
    """Run ``workload`` on ``fleet``. The same arguments give the same run, to the last bit."""
    longest = min(member.profile.max_width for member in fleet)
    return Driver(fleet, workload.clipped(longest), options).run()


def _idle(device: Device) -> bool:
    return device.up and device.free_slots > 0
