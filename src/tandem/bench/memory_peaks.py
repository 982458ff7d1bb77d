"""How near ``memory.estimate`` comes to measured peaks: in a process of its own, on an engine of its own a batch.

As a module it is the child: reads a job, fits on small batches, answers with what it predicted for larger ones.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from operator import methodcaller

import msgspec
import numpy as np

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.base import Backend, GraphModel
from tandem.backends.child_process import command, environment, how_it_ended
from tandem.backends.graph_model import graph_model
from tandem.config import Settings, source_options
from tandem.errors import JobError
from tandem.memory.estimate import EncoderShape, Footprint, PeakModel, guess
from tandem.memory.measure import peak_bytes
from tandem.models.loaded import load_model
from tandem.models.resolve import find_model
from tandem.types import Packing, Tier, TokenBatch

# (rows, width): narrow and wide, of 1,024 and 2,048 tokens; then what is predicted from them.
FITTED = ((32, 32), (4, 256), (64, 32), (8, 256))
PREDICTED = ((8, 64), (30, 40), (8, 128), (20, 100), (64, 64), (16, 256), (60, 100))


class PeaksJob(msgspec.Struct, frozen=True):
    """``backend`` as in ``BACKENDS``; ``tier`` as in ``Tier``."""

    model: str
    backend: str
    tier: Tier
    threads: int


class Peak(msgspec.Struct, frozen=True):
    """One batch. ``error`` is in parts of what was measured; positive where too much was predicted."""

    rows: int
    width: int
    measured_bytes: int
    predicted_bytes: float

    @property
    def error(self) -> float:
        return self.predicted_bytes / self.measured_bytes - 1


class Peaks(msgspec.Struct, frozen=True):
    """``guessed`` are the same batches before anything was measured; both empty where peaks can not be measured.
    ``counted``: where and how they were."""

    footprint: Footprint
    counted: str
    predicted: list[Peak] = []
    guessed: list[Peak] = []


def peaks(job: PeaksJob) -> Peaks:
    """Run ``job`` in a child. Raises JobError when that fails."""
    done = subprocess.run(
        command("tandem.bench.memory_peaks"),
        input=msgspec.json.encode(job),
        env=environment(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        tail = " ".join(done.stderr.decode(errors="replace").strip().splitlines()[-1:])
        raise JobError(f"measuring peaks {how_it_ended(done.returncode)}: {tail}")
    return msgspec.json.decode(done.stdout, type=Peaks)


def measured(job: PeaksJob) -> Peaks:
    """The child's part."""
    settings = Settings(model=job.model)
    model = load_model(find_model(settings.model, source_options(settings)))
    d = model.description
    shape_of = EncoderShape(
        hidden=d.hidden,
        heads=d.heads,
        intermediate=d.intermediate,
        dims=d.dims,
        gated=d.gated,
        element_bytes=2 if job.tier is Tier.BF16 else 4,
        scores=job.backend == "onnxruntime",
    )
    prior = guess(shape_of)
    graph = graph_model(model)
    counted, measure = _tensors(job, graph) if job.backend == "torch" else _resident(job, graph)
    fit = PeakModel(prior)
    found: dict[tuple[int, int], int] = {}
    for shape in (*FITTED, *PREDICTED):
        peak = measure(*shape)
        if peak is None:
            return Peaks(prior, counted)
        found[shape] = peak
    for rows, width in FITTED:
        fit.observe(rows * width, rows * width * width, rows, found[rows, width])
    predicted, guessed = ([_peak(found, shape, made) for shape in PREDICTED] for made in (fit.footprint, prior))
    return Peaks(fit.footprint, counted, predicted, guessed)


def _resident(job: PeaksJob, graph: GraphModel) -> tuple[str, Callable[[int, int], int | None]]:
    packing = _engine(job, graph, "cpu").packing

    def measure(rows: int, width: int) -> int | None:
        return peak_bytes(partial(_engine, job, graph, "cpu"), methodcaller("run", _batch(rows, width, packing)))

    return "resident memory, an engine a batch", measure


def _tensors(job: PeaksJob, graph: GraphModel) -> tuple[str, Callable[[int, int], int | None]]:
    """PyTorch counts its tensors itself. What its kernels and malloc keep beside them moves resident memory on a CPU by
    half of small batches, and follows no rule."""
    from tandem.bench.memory_torch import peak_device, tensor_peak_bytes

    backend = _engine(job, graph, peak_device())

    def measure(rows: int, width: int) -> int | None:
        return tensor_peak_bytes(partial(backend.run, _batch(rows, width, backend.packing)))

    return f"tensors on {peak_device()}", measure


def _peak(found: dict[tuple[int, int], int], shape: tuple[int, int], footprint: Footprint) -> Peak:
    rows, width = shape
    return Peak(rows, width, found[shape], footprint.peak_bytes(rows * width, rows * width * width, rows))


def _engine(job: PeaksJob, graph: GraphModel, device: str) -> Backend:
    """As new, but for what it prepares once: OpenVINO packs the weights of MLPs anew for some widths, 64 among them,
    14 MB of MiniLM's, which are the model's and no batch's."""
    backend = BACKENDS.get(job.backend)(graph, BackendOptions(tier=job.tier, threads=job.threads, device=device))
    for width in (16, 64):
        backend.run(_batch(1, width, backend.packing))
    return backend


def _batch(rows: int, width: int, packing: Packing) -> TokenBatch:
    """``rows`` texts of ``width`` tokens, one a row, or all in one for a backend that takes them so."""
    shape = (1, rows * width) if packing is Packing.FLAT else (rows, width)
    return TokenBatch(
        ids=np.full(shape, 7, np.int32),
        lengths=np.full(rows, width, np.int32),
        places=np.arange(0, rows * width, width, dtype=np.int32),
    )


def main() -> int:
    """Read a job from stdin, write the result to stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(measured(msgspec.json.decode(sys.stdin.buffer.read(), type=PeaksJob))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
