"""What ``tandem doctor`` finds out: machine, settings, model, engines, and what keeps them from serving."""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from tandem import __version__
from tandem.backends import BACKENDS
from tandem.backends.cgroup import memory_limit_bytes
from tandem.backends.choose import Tried, Wish, candidates, options_for, tries
from tandem.backends.cpu import CpuInfo, cpu_info
from tandem.backends.probe import Probes
from tandem.cli.checkup_caches import CacheFinding, cache_findings, without_password
from tandem.cli.serve import server_options
from tandem.config import SETTINGS, Settings, source_options
from tandem.devices import CPU
from tandem.errors import ConfigError, ModelError
from tandem.fleet import FAKE, probes_of, seat_devices, wish_of
from tandem.models.folder import ModelFolder
from tandem.models.loaded import LoadedModel, load_model
from tandem.models.progress import Progress
from tandem.models.resolve import find_model, locate_model
from tandem.server import listen
from tandem.types import Tier

State: TypeAlias = Literal["chosen", "fits", "refused", "not tried"]


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """``fresh``: no kept verdicts. ``pull``: fetch a model that is not here. ``try_all``: also what would not be
    needed. ``note`` hears what takes time."""

    fresh: bool = False
    pull: Progress | None = None
    try_all: bool = False
    note: Callable[[str], None] = lambda line: None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """``threads`` and ``streams`` are what inference would use. None: not known, or no limit."""

    tandem: str
    python: str
    os: str
    cpu: CpuInfo
    native_bf16: bool
    threads: int
    streams: int
    memory_bytes: int | None
    memory_limit_bytes: int | None
    gpus: list[str]


class StoreFacts(msgspec.Struct, frozen=True):
    """The folder of models; ``free_bytes`` of the disk that it is on or would be."""

    path: str
    models_bytes: int
    free_bytes: int
    writable: bool


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``weights_bytes``: in fp32; None for a model that is served from its own graph."""

    path: str
    source: str
    family: str
    dims: int
    max_tokens: int
    fingerprint: str
    weights_bytes: int | None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An engine at a tier on a device. ``cosine``: the least to the fp32 reference; None where it was not measured."""

    device: str = CPU
    backend: str
    tier: Tier
    state: State
    why: str
    cosine: float | None = None
    kept: bool = False


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``problems`` keep this machine from serving with these settings."""

    machine: Machine
    engines: dict[str, str | None]
    settings: dict[str, str]
    store: StoreFacts
    address: str
    model_name: str
    model: ModelFacts | None
    caches: list[CacheFinding]
    candidates: list[Candidate]
    problems: list[str]

    @property
    def can_serve(self) -> bool:
        return not self.problems


def examine(settings: Settings, how: Examination) -> Checkup:
    """Look at everything; what is wrong is in ``problems``. Raises ConfigError for an unknown backend's name."""
    cpu = cpu_info()
    problems = [found for found in (_address_problem(settings), _server_problem(settings)) if found]
    model = _model(settings, how, problems)
    tried = _candidates(settings, cpu, model, how)
    if model is not None and not any(one.state == "chosen" for one in tried):
        problems.append("no inference engine works here for this model")
    machine = _machine(settings, cpu)
    return Checkup(
        machine=machine,
        engines={name: _version(name) for name in BACKENDS},
        settings=_changed(settings),
        store=_store(source_options(settings).store_dir),
        address=f"{settings.host}:{settings.port}",
        model_name=settings.model,
        model=None if model is None else _described(model),
        caches=cache_findings(settings, model, machine.memory_limit_bytes or machine.memory_bytes, problems),
        candidates=tried,
        problems=problems,
    )


def nvidia_gpus(devices: Path = Path("/dev"), command: str = "nvidia-smi") -> list[str]:
    """The GPUs that NVIDIA's driver shows, in its own words, or the device files where its tool is not there."""
    question = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(question, capture_output=True, text=True, timeout=20)
        found = [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        found = []
    return found or [str(path) for path in sorted(devices.glob("nvidia[0-9]*"))]


def _machine(settings: Settings, cpu: CpuInfo) -> Machine:
    options = options_for(wish_of(settings), cpu, Tier.FP32)
    pages = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    known = hasattr(os, "sysconf") and all(name in os.sysconf_names for name in pages)
    return Machine(
        tandem=__version__,
        python=platform.python_version(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu,
        native_bf16=cpu.native_bf16,
        threads=options.threads,
        streams=options.streams,
        memory_bytes=prod(map(os.sysconf, pages)) if known else None,
        memory_limit_bytes=memory_limit_bytes(),
        gpus=nvidia_gpus(),
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _changed(settings: Settings) -> dict[str, str]:
    """What is not as by default; a secret, which has no flag, is counted and not shown."""
    values = {row: getattr(settings, row.name) for row in SETTINGS}
    return {
        row.name: _worded(value) if row.flag else f"{len(value)} hidden"
        for row, value in values.items()
        if value != row.default
    }


def _worded(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else without_password(str(value))


def _store(folder: Path) -> StoreFacts:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return StoreFacts(str(folder), sum(sizes), shutil.disk_usage(there).free, os.access(there, os.W_OK))


def _address_problem(settings: Settings) -> str | None:
    try:
        listen(settings.host, settings.port).close()
    except ConfigError as error:
        return f"{error}; another server may be running, --port names another port"
    return None


def _server_problem(settings: Settings) -> str | None:
    """Whether the files that a server needs can be read."""
    try:
        server_options(settings, max_batch_tokens=1)
        if settings.tls_cert_file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except ConfigError as error:
        return str(error)
    except (OSError, ssl.SSLError) as error:
        return f"can not use the certificate {settings.tls_cert_file!r} with its key: {error}"
    return None


def _model(settings: Settings, how: Examination, problems: list[str]) -> LoadedModel | None:
    try:
        return load_model(_find(settings, how.pull))
    except ModelError as error:
        problems.append(str(error))
    return None


def _find(settings: Settings, pull: Progress | None) -> ModelFolder:
    sources = source_options(settings)
    return locate_model(settings.model, sources) if pull is None else find_model(settings.model, sources, pull)


def _described(model: LoadedModel) -> ModelFacts:
    folder, d = model.folder, model.description
    return ModelFacts(
        path=str(folder.path),
        source=folder.source,
        family=d.family,
        dims=d.dims,
        max_tokens=model.tokenizer.max_tokens,
        fingerprint=folder.fingerprint(),
        weights_bytes=model.weights_bytes,
    )


def _candidates(settings: Settings, cpu: CpuInfo, model: LoadedModel | None, how: Examination) -> list[Candidate]:
    if settings.backend == FAKE:
        return [Candidate(backend=FAKE, tier=Tier.FP32, state="chosen", why="a test double: its vectors mean nothing")]
    # Workers that share a device run the same.
    wishes = {wish.device: wish for wish in (wish_of(settings, seating) for seating in seat_devices(settings, cpu))}
    return [one for wish in wishes.values() for one in _on_device(wish, settings, cpu, model, how)]


def _on_device(
    wish: Wish, settings: Settings, cpu: CpuInfo, model: LoadedModel | None, how: Examination
) -> Iterator[Candidate]:
    """The candidates in order; from the one on that would serve, they are not tried."""
    tried = 0
    if model is not None:
        for one in _tried(wish, cpu, model.folder, how, probes_of(settings, fresh=how.fresh)):
            tried += 1
            yield one
    why = "there is no model to try it on" if model is None else "the one chosen serves"
    for name, tier in candidates(wish, cpu)[tried:]:
        yield Candidate(device=wish.device, backend=name, tier=tier, state="not tried", why=why)


def _tried(wish: Wish, cpu: CpuInfo, folder: ModelFolder, how: Examination, probes: Probes) -> Iterator[Candidate]:
    """The candidates in order, up to the one that would serve, or all."""
    chosen = False
    how.note("trying the inference engines; a model's first time takes seconds")
    for one in tries(wish, cpu, folder, probes):
        yield _judged(wish.device, one, "refused" if not one.ok else "fits" if chosen else "chosen")
        chosen = chosen or one.ok
        if chosen and not how.try_all:
            return


def _judged(device: str, one: Tried, state: State) -> Candidate:
    return Candidate(
        device=device,
        backend=one.backend,
        tier=one.tier,
        state=state,
        why=one.why,
        cosine=one.verdict.cosine if one.verdict.reference else None,
        kept=one.verdict.kept,
    )
