"""Try a backend in a child process: does it run here at all, and are its numbers right?

An engine that does not suit the CPU may end its process with a signal (OpenVINO has done so on some AMD hosts), which
no ``except`` catches. The child computes the fp32 reference too, so that a later start need not: verdicts are kept, by
everything that could change them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np
from msgspec import field
from numpy.typing import NDArray

from tandem import __version__
from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.base import CPU_DEVICE
from tandem.backends.child_process import command, environment, how_it_ended, leave_no_core
from tandem.backends.cpu import CpuInfo
from tandem.backends.footprint import fitted
from tandem.backends.graph_model import graph_model
from tandem.backends.proof import PROBE_TEXTS, probe_batch, prove
from tandem.errors import TandemError
from tandem.memory.estimate import Footprint
from tandem.models.folder import ModelFolder
from tandem.models.loaded import LoadedModel, load_model
from tandem.types import TokenBatch

log = logging.getLogger("tandem.backends")

# Loading and running a 2 GB model on a slow disk takes a minute; a child that hangs is ended.
_TIMEOUT_S = 300.0
# Larger models are not built three times to see what a batch takes: the guess must do.
_MEASURED_BYTES = 1 << 29
_COMMAND = command("tandem.backends.probe")


class ProbeJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to try."""

    backend: str
    options: BackendOptions
    folder: str
    name: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``cosine``: the smallest to the fp32 reference over the probe texts; ``reference`` its rows, float32 bytes.
    ``footprint``: what a batch takes, None where it was not measured. ``kept``: an earlier start's answer."""

    ok: bool
    why: str
    cosine: float = -1.0
    reference: bytes = b""
    footprint: Footprint | None = None
    kept: bool = False

    def reference_rows(self, n: int) -> NDArray[np.float32]:
        """The reference as [n, dims]."""
        return np.frombuffer(self.reference, np.float32).reshape(n, -1)


class Probes(msgspec.Struct, frozen=True, kw_only=True):
    """How candidates are tried. ``cache``: the folder of kept verdicts, None to keep none. ``fresh``: try anew what has
    a kept verdict too. ``attempt`` tries a job, and answers whatever becomes of it; tests hand in a function.
    """

    cache: Path | None = None
    fresh: bool = False
    attempt: Callable[[ProbeJob], Verdict] = field(default_factory=lambda: in_child)


def probe(job: ProbeJob, cpu: CpuInfo, fingerprint: str, probes: Probes) -> Verdict:
    """The verdict on a job: a kept one, or a child's. Only good verdicts are kept: a bad one may have had a passing
    cause. Never raises for what the child does."""
    file = _place(job, cpu, fingerprint, probes.cache)
    kept = _read(file) if file and not probes.fresh else None
    if kept is not None:
        return kept
    verdict = probes.attempt(job)
    if file is not None:
        _keep(file, verdict)
    return verdict


def run_job(job: ProbeJob) -> Verdict:
    """Try it in this process: what the child does."""
    model = load_model(ModelFolder(path=Path(job.folder), name=job.name, source="folder"))
    make = partial(BACKENDS.get(job.backend), graph_model(model), job.options)
    backend = make()
    batch = probe_batch(model.tokenizer, backend.packing)
    reference = reference_rows(model, batch)
    proof = prove(backend, batch, reference)
    why = f"cosine to the reference {proof.cosine:.7f}, {backend.tier} promises {proof.bound}"
    backend.close()
    footprint = None
    # A GPU's memory is not the process' own, and building a large model again and again would take a minute.
    if proof.holds and job.options.device == CPU_DEVICE and (model.weights_bytes or _MEASURED_BYTES) < _MEASURED_BYTES:
        footprint = fitted(model.description, job.backend, backend.tier, make, model.tokenizer.max_tokens)
    return Verdict(ok=proof.holds, why=why, cosine=proof.cosine, reference=reference.tobytes(), footprint=footprint)


def reference_rows(model: LoadedModel, batch: TokenBatch) -> NDArray[np.float32]:
    """The fp32 reference's rows. A repository's own graph has no second implementation: another engine's fp32 stands
    in for it, or OpenVINO's where the file is its own format."""
    if model.own_graph is None:
        return model.reference(batch)
    engine = "openvino" if model.own_graph.path.suffix == ".xml" else "onnxruntime"
    return BACKENDS.get(engine)(graph_model(model), BackendOptions()).run(batch)


def in_child(job: ProbeJob, arguments: Sequence[str] = _COMMAND, timeout_s: float = _TIMEOUT_S) -> Verdict:
    """Try a job in a child process, which may end in any way it likes."""
    try:
        child = subprocess.run(
            arguments, input=msgspec.json.encode(job), capture_output=True, timeout=timeout_s, env=environment()
        )
    except subprocess.TimeoutExpired:
        return Verdict(ok=False, why=f"gave no answer in {timeout_s:g} s")
    except OSError as error:
        return Verdict(ok=False, why=f"could not be tried: {error}")
    if child.returncode < 0:
        return Verdict(ok=False, why=how_it_ended(child.returncode) + _cause(child.returncode))
    try:
        return msgspec.json.decode(child.stdout, type=Verdict)
    except msgspec.DecodeError:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        return Verdict(ok=False, why=f"failed: {lines[-1] if lines else f'exit code {child.returncode}'}")


def _cause(returncode: int) -> str:
    if -returncode not in set(signal.Signals):
        return ""
    return ": most likely for want of memory" if -returncode == signal.SIGKILL else ": it does not suit this CPU"


def _place(job: ProbeJob, cpu: CpuInfo, fingerprint: str, cache: Path | None) -> Path | None:
    """The file of a job's verdict, named by all that could change it; None where none is kept."""
    try:
        engine = version(job.backend)
    except PackageNotFoundError:  # not installed, or by a distribution of another name, whose changes do not show
        return None
    hardware = (cpu.model, cpu.flags) if job.options.device == CPU_DEVICE else gpus_in_words()
    parts = (__version__, engine, hardware, fingerprint, job.backend, job.options, PROBE_TEXTS)
    return cache / f"{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]}.json" if cache else None


def gpus_in_words(driver: Path = Path("/proc/driver/nvidia")) -> tuple[str, ...]:
    """NVIDIA's driver and GPUs as the driver describes them, without starting CUDA; empty where there are none."""
    files = [driver / "version", *sorted(driver.glob("gpus/*/information"))]
    return tuple(file.read_text(errors="replace") for file in files if file.is_file())


def _read(file: Path) -> Verdict | None:
    try:
        verdict = msgspec.json.decode(file.read_bytes(), type=Verdict)
    except (OSError, msgspec.DecodeError):
        return None
    whole = len(verdict.reference) % (4 * len(PROBE_TEXTS)) == 0 and verdict.reference
    return msgspec.structs.replace(verdict, kept=True) if verdict.ok and whole else None


def _keep(file: Path, verdict: Verdict) -> None:
    scratch = file.with_suffix(f".{os.getpid()}")
    try:
        if not verdict.ok:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(msgspec.json.encode(verdict))
        scratch.replace(file)
    except OSError as error:
        log.warning("the probe's verdict was not kept, the next start will probe again: %s", error)


def main() -> int:
    """The child: a job on standard input, a verdict on standard output."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeJob)
    # Engines print to standard output as they please; the verdict must stand there alone.
    answer = os.dup(1)
    os.dup2(2, 1)
    leave_no_core()
    try:
        verdict = run_job(job)
    except (TandemError, RuntimeError, ImportError, MemoryError) as error:
        verdict = Verdict(ok=False, why=f"failed: {error}")
    os.write(answer, msgspec.json.encode(verdict))
    return 0


if __name__ == "__main__":
    sys.exit(main())
