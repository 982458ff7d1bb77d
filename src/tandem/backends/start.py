"""Start a backend where it is to run: this process, or a worker's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from tandem.backends import BACKENDS, Backend
from tandem.backends.base import CPU_DEVICE
from tandem.backends.graph_model import graph_model
from tandem.backends.probe import ProbeJob
from tandem.backends.proof import probe_batch, prove
from tandem.errors import BackendFailed
from tandem.models.folder import ModelFolder
from tandem.models.loaded import LoadedModel, load_model


class StartJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to start, and the fp32 reference's rows of the probe texts, float32 bytes, that it must keep to."""

    probe: ProbeJob
    reference: bytes


def start_in_child(job: StartJob) -> Backend:
    """In a process that has loaded nothing yet and does nothing else. Raises BackendFailed, ModelError."""
    options = job.probe.options
    if options.device != CPU_DEVICE:
        from tandem.backends.torch_device import cap_memory

        cap_memory(options.device, options.memory_fraction, options.memory_bytes)
    folder = ModelFolder(path=Path(job.probe.folder), name=job.probe.name, source="folder")
    return start_backend(load_model(folder), job)


def start_backend(model: LoadedModel, job: StartJob) -> Backend:
    """The backend, held to its tier's promise. Raises BackendFailed."""
    name = job.probe.backend
    try:
        backend = BACKENDS.get(name)(graph_model(model), job.probe.options)
        batch = probe_batch(model.tokenizer, backend.packing)
        reference = np.frombuffer(job.reference, np.float32).reshape(len(batch.lengths), -1)
        proof = prove(backend, batch, reference)
    except RuntimeError as error:
        raise BackendFailed(f"{name} passed its probe but fails in the process that serves: {error}") from error
    if proof.holds:
        return backend
    backend.close()
    raise BackendFailed(
        f"{name} {backend.tier} passed its probe but not its proof: cosine {proof.cosine:.6f} to the "
        f"reference, promised {proof.bound}"
    )
