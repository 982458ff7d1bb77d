"""Threads that share cores, on a virtual clock: the batches of a device, and beside them what the server itself does.

A batch has work, in seconds of a core that it has for itself, and speed, which changes whenever anything else on its
cores begins or ends. The server's threads sleep most of the time, and a scheduler that is fair to threads over time (as
Linux's is) lets such a thread go first when it wakes: so what is serial has a core at once, and batches share the rest.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from tandem.simulation.profile import DeviceProfile


class Run:
    """A batch on its way: what it still takes of an undisturbed core, in seconds; ``what`` is the driver's own."""

    __slots__ = ("left_s", "what")

    def __init__(self, work_s: float, what: Any) -> None:
        self.left_s = work_s
        self.what = what


class Serial:
    """One thread with a queue of small jobs, first come first served. When it wakes and no core is free it may be left
    to wait, for ``wake_s`` at the most: a thread that was awake often of late has no claim to go first."""

    __slots__ = ("busy_s", "jobs", "left_s", "ready_s", "wake_s")

    def __init__(self, wake_s: float = 0.0) -> None:
        self.jobs: deque[tuple[float, Any]] = deque()
        self.left_s = 0.0
        self.busy_s = 0.0
        self.ready_s = 0.0
        self.wake_s = wake_s

    def put(self, work_s: float, what: Any) -> bool:
        """Queue a job; whether the thread was asleep."""
        self.jobs.append((work_s, what))
        if len(self.jobs) > 1:
            return False
        self.left_s = work_s
        return True

    def pop(self) -> Any:
        """The job that has ended; the next begins."""
        work_s, what = self.jobs.popleft()
        self.busy_s += work_s
        if self.jobs:
            self.left_s = self.jobs[0][0]
        return what


class Cores:
    """What runs on one device's cores. Without a profile, cores enough for the serial threads and nothing else."""

    def __init__(self, profile: DeviceProfile | None, serials: tuple[Serial, ...] = ()) -> None:
        self._profile = profile
        self._cores = profile.cores if profile and serials else 0
        self._in_turn = bool(profile and profile.in_turn)
        self._serials = serials
        self._runs: list[Run] = []
        self._now_s = 0.0
        self._run_speed = self._serial_speed = 1.0
        self.next_s = math.inf
        """When the next batch or job ends, if nothing else happens."""

    def start(self, run: Run, now: float) -> None:
        self._advance(now)
        self._runs.append(run)
        self._plan()

    def put(self, serial: Serial, work_s: float, what: Any, now: float) -> None:
        """Queue a job on a serial thread of these cores."""
        if not serial.jobs:
            self._advance(now)
            awake = sum(1 for each in self._serials if each.jobs)
            serial.put(work_s, what)
            busy = self._cores and len(self._runs) + awake >= self._cores
            serial.ready_s = now + serial.wake_s if busy else now
            self._plan()
        else:
            serial.put(work_s, what)

    def ended(self, now: float) -> tuple[list[Run], list[Any]]:
        """The batches and the serial jobs that end now."""
        self._advance(now)
        runs = [run for run in self._runs if run.left_s <= 1e-12]
        if runs:
            self._runs = [run for run in self._runs if run.left_s > 1e-12]
        jobs = [serial.pop() for serial in self._serials if serial.jobs and serial.left_s <= 1e-12]
        if runs or jobs:
            # A core is free: whoever waited for one has it.
            for serial in self._serials:
                serial.ready_s = min(serial.ready_s, now)
        self._plan()
        return runs, jobs

    def _advance(self, now: float) -> None:
        passed_s = now - self._now_s
        if passed_s > 0:
            done_s = passed_s * self._run_speed
            for run in self._computing():
                run.left_s -= done_s
            for serial in self._serials:
                if serial.jobs and serial.ready_s <= self._now_s:
                    serial.left_s -= passed_s * self._serial_speed
            self._now_s = now

    def _plan(self) -> None:
        runs, soonest_s, wakes_s = len(self._computing()), math.inf, math.inf
        awake = 0
        for serial in self._serials:
            if not serial.jobs:
                continue
            if serial.ready_s > self._now_s:
                wakes_s = min(wakes_s, serial.ready_s - self._now_s)
            else:
                awake += 1
                soonest_s = min(soonest_s, serial.left_s)
        self._set_speeds(runs, awake)
        next_s = min(soonest_s / self._serial_speed, wakes_s)
        for run in self._computing():
            next_s = min(next_s, run.left_s / self._run_speed)
        self.next_s = self._now_s + max(0.0, next_s)

    def _computing(self) -> list[Run]:
        return self._runs[:1] if self._in_turn else self._runs

    def _set_speeds(self, runs: int, awake: int) -> None:
        profile, cores = self._profile, self._cores
        if profile is None or not cores:
            self._run_speed = profile.speed(runs) if profile and runs else 1.0
            self._serial_speed = 1.0
        elif runs + awake <= cores:
            self._run_speed = self._serial_speed = profile.speed(max(1, runs + awake))
        elif awake < cores:
            self._serial_speed = profile.speed(cores)
            self._run_speed = self._serial_speed * (cores - awake) / runs
        else:
            self._run_speed = self._serial_speed = profile.speed(runs + awake)
