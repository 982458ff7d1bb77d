"""The peers: other people's engines, each in its own environment, spoken to over pipes or HTTP.

``bench/peers/setup.py`` makes the environments. A peer that is not set up is left out of a report, which says so.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from tandem.bench.processes import HOST, ServerSpec, thread_limits
from tandem.bench.stats import Vectors
from tandem.errors import JobError

# No peer may reach for the network: the weights are given, and usage statistics are nobody's business here.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "true",
}


class LibraryPeer(msgspec.Struct, frozen=True):
    """One way of running one peer in a process of its own. ``options`` go to the peer's load job, and so does
    ``batch_size``, which is the one that was best for it on two cores and the mixed texts, of 4, 8, 16 and 32."""

    name: str
    environment: str
    script: str
    batch_size: int
    options: dict[str, object]


LIBRARY_PEERS: tuple[LibraryPeer, ...] = (
    LibraryPeer("sentence-transformers fp32", "sentence-transformers", "sentence_transformers_peer.py", 4, {}),
    LibraryPeer(
        "sentence-transformers bf16", "sentence-transformers", "sentence_transformers_peer.py", 4, {"precision": "bf16"}
    ),
    # It does not sort by length, so its own default of 256 pads nearly every text to the longest.
    LibraryPeer("fastembed fp32", "fastembed", "fastembed_peer.py", 4, {}),
)


INFINITY_PACKAGES = ("infinity-emb", "torch", "transformers", "optimum")


class PeerTimes(msgspec.Struct, frozen=True):
    """A peer's answer to one embed job."""

    seconds: list[float]
    rows: int
    checksum: int


class PeerSetup(msgspec.Struct, frozen=True):
    """What a peer says of itself after loading."""

    load_s: float
    versions: dict[str, str]
    settings: dict[str, str | int | float | None]

    def text(self) -> str:
        """One line for the report."""
        return ", ".join(f"{name} {value}" for name, value in {**self.versions, **self.settings}.items())


class _Answer(msgspec.Struct):
    ok: bool
    error: str = ""


class PeerProcess:
    """A peer that has loaded its model and waits for texts; a context manager that ends it."""

    def __init__(self, peer: LibraryPeer, folder: Path, model: Path, threads: int) -> None:
        self.peer = peer
        self._job = {
            "op": "load",
            "model": str(model),
            "onnx": str(folder / ".models" / "fastembed"),
            "threads": threads,
            "batch_size": peer.batch_size,
            **peer.options,
        }
        self._command = [str(python(folder, peer.environment)), str(folder / peer.script)]
        self._environment = os.environ | OFFLINE | thread_limits(threads)
        # Not in a with block: it lives as long as the process does, and __exit__ closes it.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None
        self.setup = PeerSetup(0.0, {}, {})

    def __enter__(self) -> PeerProcess:
        # PYTHONPATH would let this environment's packages into the peer's.
        self._environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment,
        )
        try:
            self.setup = msgspec.json.decode(self._ask(self._job), type=PeerSetup)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the peer by ending its input, and wait for it. Idempotent."""
        if self._process is not None:
            self._process.communicate()
        self._errors.close()

    def embed(self, texts: Path, vectors: Path | None = None) -> PeerTimes:
        """Embed the JSON list in ``texts`` once; rows go to ``vectors`` as ``.npy`` if given."""
        job = {"op": "embed", "texts": str(texts), "repeats": 1, "vectors": str(vectors) if vectors else None}
        return msgspec.json.decode(self._ask(job), type=PeerTimes)

    def rows(self, texts: Sequence[str], folder: Path) -> Vectors:
        """Embed ``texts`` and read the rows back, through files in ``folder``."""
        source, target = folder / "texts.json", folder / "rows.npy"
        source.write_bytes(msgspec.json.encode(list(texts)))
        self.embed(source, target)
        rows: Vectors = np.load(target)
        return rows

    def _ask(self, job: dict[str, object]) -> bytes:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            tail = self._errors.read().decode(errors="replace").strip().splitlines()[-2:]
            raise JobError(f"peer {self.peer.name} ended: {' | '.join(tail)}")
        answer = msgspec.json.decode(line, type=_Answer)
        if not answer.ok:
            raise JobError(f"peer {self.peer.name}: {answer.error}")
        return line


def infinity_server(folder: Path, model: Path, threads: int, dtype: str = "auto") -> ServerSpec:
    """infinity-emb with its torch engine, set as it was fastest here: each list of 32 in batches of 8, and without
    BetterTransformer, which took 9 % more CPU time on this kind of machine; its defaults together took 27 % more."""
    command = [str(folder / ".envs" / "infinity" / "bin" / "infinity_emb"), "v2", "--model-id", str(model)]
    command += ["--served-model-name", "peer", "--engine", "torch", "--device", "cpu", "--dtype", dtype]
    command += ["--batch-size", "8", "--no-bettertransformer"]
    command += ["--host", HOST, "--port", "{port}", "--log-level", "error"]
    return ServerSpec(
        name="infinity" if dtype == "auto" else f"infinity {dtype}",
        command=command,
        path="/embeddings",
        model="peer",
        environment={**OFFLINE, **thread_limits(threads)},
        settings={
            "engine": "torch",
            "dtype": dtype,
            "batch_size": "8",
            "bettertransformer": "off",
            "compile": "on",
            "threads": str(threads),
        },
    )


def versions(folder: Path, environment: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of ``packages`` in a peer's environment. Raises CalledProcessError when it lacks one."""
    code = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
    done = subprocess.run(
        [str(python(folder, environment)), "-c", code, *packages], capture_output=True, text=True, check=True
    )
    return dict(zip(packages, done.stdout.split(), strict=True))


def available(folder: Path, environment: str) -> bool:
    """Whether ``bench/peers/setup.py`` has finished with this environment."""
    return (folder / ".envs" / environment / "ready").is_file()


def python(folder: Path, environment: str) -> Path:
    """The interpreter of a peer's environment."""
    return folder / ".envs" / environment / "bin" / "python"
