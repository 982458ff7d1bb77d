"""Servers as child processes on loopback: started, awaited, watched and stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

import msgspec

from tandem.errors import JobError

HOST = "127.0.0.1"
START_S = 300.0
STOP_S = 30.0
POLL_S = 0.005


class ServerSpec(msgspec.Struct, frozen=True):
    """How to start a server and how to ask it. ``{port}`` in the command is filled in; ``probe`` is a JSON body."""

    name: str
    command: list[str]
    path: str
    model: str
    environment: dict[str, str] = {}
    settings: dict[str, str] = {}

    def body(self, texts: str | Sequence[str]) -> dict[str, object]:
        """An OpenAI embeddings request, which every server here takes."""
        return {"model": self.model, "input": texts, "encoding_format": "float"}


class Server:
    """A running child; a context manager that always ends it. Its output goes to ``log``."""

    def __init__(self, spec: ServerSpec, log: Path) -> None:
        self.spec = spec
        self.port = free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.first_answer_s = 0.0
        """Seconds from the start of the process to its first right answer."""

    def __enter__(self) -> Server:
        command = [part.replace("{port}", str(self.port)) for part in self.spec.command]
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | self.spec.environment
            )
        try:
            self._await_answer(started + START_S)
        except BaseException:
            self.stop()
            raise
        self.first_answer_s = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def post(self, body: object, timeout_s: float = 60.0) -> bytes:
        """One request on a connection of its own. Raises JobError for any status but 200."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request("POST", self.spec.path, msgspec.json.encode(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            raise JobError(f"{self.spec.name} answered {answer.status}: {content[:200].decode(errors='replace')}")
        return content

    def get(self, path: str) -> bytes:
        """The body of a GET, whatever its status."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read()

    def children(self) -> list[int]:
        """Process ids of all that it has started, and they."""
        return _tree(self.pid)[1:]

    def rss_bytes(self) -> int:
        """Resident memory of the process and its children."""
        return sum(_rss_bytes(pid) for pid in _tree(self.pid))

    def cpu_s(self) -> float:
        """CPU seconds, user and system, that the process and its children have used."""
        return sum(_cpu_s(pid) for pid in _tree(self.pid))

    def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end in ``STOP_S``."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_answer(self, deadline: float) -> None:
        assert self._process is not None
        while time.perf_counter() < deadline:
            if self._process.poll() is not None:
                break
            # Refused until the port is open; JobError while the model is still loading, which answers 503.
            with contextlib.suppress(OSError, http.client.HTTPException, JobError):
                self.post(self.spec.body("hello"))
                return
            time.sleep(POLL_S)
        tail = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        raise JobError(f"{self.spec.name} did not start: {' | '.join(tail)}")


def tandem_server(
    model: str, precision: str, threads: int | None = None, more: Mapping[str, str] = MappingProxyType({})
) -> ServerSpec:
    """``tandem serve`` of this very environment, as a user would start it; ``more`` are settings by their keys."""
    command = [sys.executable, "-m", "tandem", "serve", model, "--host", HOST, "--port", "{port}"]
    settings = {"precision": precision} | ({} if threads is None else {"threads": str(threads)})
    # What is measured is the computing of texts, and loads repeat theirs.
    command += [] if "cache" in more else ["--cache", "off"]
    flags = [word for key, value in more.items() for word in (f"--{key.replace('_', '-')}", value)]
    return ServerSpec(
        name=" ".join(("tandem", precision, *more.values())),
        command=[*command, "--precision", precision, *flags],
        path="/v1/embeddings",
        model=model,
        settings={**settings, **more},
    )


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def thread_limits(threads: int) -> dict[str, str]:
    """The environment that holds OpenMP, MKL, OpenBLAS and Rayon to ``threads``."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        tasks = Path(f"/proc/{parent}/task")
        for task in tasks.iterdir() if tasks.is_dir() else ():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _rss_bytes(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
