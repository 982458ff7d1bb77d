"""The workers of a model: one for each planned device, each with a backend that was probed and proven.

A device that can not serve is left out with a line that says why, and the others serve; only when none can, it is an
error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import msgspec

from tandem.backends import Backend
from tandem.backends.choose import Choice, Wish, choose
from tandem.backends.cpu import CpuInfo, cpu_info, plan_cores, usable_cores
from tandem.backends.fake import FakeBackend
from tandem.backends.probe import ProbeJob, Probes
from tandem.backends.start import StartJob, start_backend, start_in_child
from tandem.clock import Clock
from tandem.config import Settings, source_options
from tandem.devices import DevicePlan, plan_devices, visible_gpus
from tandem.errors import BackendFailed, ConfigError, TandemError
from tandem.memory.estimate import Footprint
from tandem.models.loaded import LoadedModel
from tandem.types import Tier
from tandem.workers.base import Worker
from tandem.workers.inline import InlineWorker
from tandem.workers.process import ProcessWorker, WorkerSpec

log = logging.getLogger("tandem")

Build: TypeAlias = Callable[[], Backend]

FAKE = "fake"


class Seating(msgspec.Struct, frozen=True, kw_only=True):
    """A planned worker with the cores that it is bound to, None for any, and its share of the machine's threads."""

    plan: DevicePlan
    cores: tuple[int, ...] | None
    threads: int


class Member(msgspec.Struct, frozen=True):
    """One worker, what it runs on, that in words, and what a batch takes there where that was measured."""

    worker: Worker
    seating: Seating
    words: str
    footprint: Footprint | None = None

    @property
    def plan(self) -> DevicePlan:
        return self.seating.plan


def build_fleet(settings: Settings, model: LoadedModel, clock: Clock, *, processes: bool) -> list[Member]:
    """Start the workers, side by side. ``processes``: what ``workers: auto`` means here.

    Raises BackendFailed when no device serves, ConfigError for a device or an engine that does not exist.
    """
    apart = settings.workers == "process" or (settings.workers == "auto" and processes)

    def start(seating: Seating) -> Member | TandemError:
        try:
            return _start(settings, model, clock, seating, apart)
        except TandemError as error:
            return error

    seatings = seat_devices(settings, cpu_info(), _plans(settings))
    found = _side_by_side(start, seatings)
    members = [one for one in found if isinstance(one, Member)]
    for one in found:
        if isinstance(one, ConfigError):
            # A slip in what was asked for, and no trouble of a device: nothing is served in its stead.
            _close(members)
            raise one
    if not members:
        troubles = [f"{seating.plan.id}: {one}" for seating, one in zip(seatings, found, strict=True)]
        first = found[0]
        assert isinstance(first, Exception)
        raise first if len(found) == 1 else BackendFailed(f"no device can serve. {'; '.join(troubles)}")
    for seating, one in zip(seatings, found, strict=True):
        if not isinstance(one, Member):
            log.warning("%s: %s; the other devices serve without it", seating.plan.id, one)
    if len(members) < len(found):
        # Cores were kept for those that did not start. Whoever would have had more begins anew with them.
        members = _reseated(members, seat_devices(settings, cpu_info(), [member.plan for member in members]), start)
    return members


def _side_by_side(
    start: Callable[[Seating], Member | TandemError], seatings: Sequence[Seating]
) -> list[Member | TandemError]:
    with ThreadPoolExecutor(len(seatings)) as threads:
        return list(threads.map(start, seatings))


def _reseated(
    members: Sequence[Member],
    seatings: Sequence[Seating],
    start: Callable[[Seating], Member | TandemError],
) -> list[Member]:
    found: list[Member] = []
    trouble: TandemError | None = None
    for member, seating in zip(members, seatings, strict=True):
        if member.seating == seating:
            found.append(member)
            continue
        member.worker.close()
        again = start(seating)
        if isinstance(again, Member):
            found.append(again)
        else:
            trouble = again
            log.warning("%s: %s; it served before, and is left out", seating.plan.id, again)
    if not found and trouble is not None:
        raise trouble
    return found


def _close(members: Sequence[Member]) -> None:
    for member in members:
        member.worker.close(at_once=True)


def build_backend(settings: Settings, model: LoadedModel) -> Backend:
    """The CPU's backend in this process, probed and proven, without a worker: for measurements. Raises BackendFailed
    and ConfigError."""
    if settings.backend == FAKE:
        return FakeBackend()
    choice = choose(wish_of(settings), cpu_info(), model.folder, probes_of(settings))
    return start_backend(model, _job(model, choice))


def _plans(settings: Settings) -> Sequence[DevicePlan]:
    plans = plan_devices(settings.device, visible_gpus())
    if settings.backend == FAKE:
        return tuple(plan for plan in plans if plan.on_cpu) or (DevicePlan("cpu", "cpu"),)
    return plans


def seat_devices(settings: Settings, cpu: CpuInfo, plans: Sequence[DevicePlan] | None = None) -> list[Seating]:
    """The workers of ``plans``, by default what the settings ask for, and who gets which cores. Raises ConfigError."""
    plans = _plans(settings) if plans is None else plans
    cores = plan_cores(usable_cores(cpu.quota), [0 if plan.on_cpu else 1 for plan in plans])
    seatings = []
    for plan, own in zip(plans, cores.workers, strict=True):
        # A worker alone on the CPU may roam: bound to all cores it would gain nothing.
        bound = own if len(plans) > 1 else None
        threads = settings.threads or cpu.cpus
        if plan.on_cpu:
            threads = max(1, min(threads // plan.sharing, len(own) if bound and own else threads))
        seatings.append(Seating(plan=plan, cores=bound, threads=threads))
    return seatings


def wish_of(settings: Settings, seating: Seating | None = None) -> Wish:
    """What the settings say of the backend of a device, the CPU by default."""
    return Wish(
        backend=settings.backend,
        precision=settings.precision,
        threads=seating.threads if seating else settings.threads,
        streams=settings.streams,
        device=seating.plan.device if seating else "cpu",
        memory_fraction=settings.gpu_memory_fraction / (seating.plan.sharing if seating else 1),
        memory_bytes=settings.gpu_memory_bytes // (seating.plan.sharing if seating else 1),
    )


def probes_of(settings: Settings, *, fresh: bool = False) -> Probes:
    """Verdicts are kept beside the store."""
    return Probes(cache=source_options(settings).store_dir.parent / "probes", fresh=fresh)


def _start(settings: Settings, model: LoadedModel, clock: Clock, seating: Seating, apart: bool) -> Member:
    if settings.backend == FAKE:
        worker = _worker(settings, FakeBackend, FakeBackend, seating, clock, apart)
        return Member(worker, seating, f"{seating.plan.id} (fake)")
    wish, folder = wish_of(settings, seating), model.folder
    choice = choose(wish, cpu_info(), folder, probes_of(settings))
    try:
        worker = _serve(settings, model, choice, seating, clock, apart)
    except BackendFailed as failure:
        # The verdict may have been a kept one, and no longer true.
        log.warning("%s; probing anew", failure)
        choice = choose(wish, cpu_info(), folder, probes_of(settings, fresh=True))
        worker = _serve(settings, model, choice, seating, clock, apart)
    for tried in choice.tried:
        log.log(logging.INFO if tried.ok else logging.WARNING, "%s %s: %s", tried.backend, tried.tier, tried.why)
    if settings.precision == Tier.BF16 and choice.options.tier is not Tier.BF16:
        log.warning("bf16 is not to be had on %s; serving the better tier %s", seating.plan.id, choice.options.tier)
    o = choice.options
    what = f"{o.threads} threads, {o.streams} streams" if seating.plan.on_cpu else choice.options.tier.value
    return Member(worker, seating, f"{seating.plan.id} ({choice.backend}, {what})", choice.verdict.footprint)


def _serve(
    settings: Settings, model: LoadedModel, choice: Choice, seating: Seating, clock: Clock, apart: bool
) -> Worker:
    job = _job(model, choice)
    return _worker(settings, partial(start_backend, model, job), partial(start_in_child, job), seating, clock, apart)


def _job(model: LoadedModel, choice: Choice) -> StartJob:
    folder = model.folder
    probe = ProbeJob(backend=choice.backend, options=choice.options, folder=str(folder.path), name=folder.name)
    return StartJob(probe=probe, reference=choice.verdict.reference)


def _worker(
    settings: Settings,
    here: Build,
    there: Build,
    seating: Seating,
    clock: Clock,
    apart: bool,
) -> Worker:
    if not apart:
        return InlineWorker(here(), clock, seating.plan.id)
    spec = WorkerSpec(
        device_id=seating.plan.id,
        build=there,
        cpus=seating.cores,
        threads=seating.threads if seating.plan.on_cpu else 0,
        forward_timeout_s=settings.forward_timeout_s,
    )
    return ProcessWorker(spec, clock)
