"""A Redis of the benchmark's own, on loopback, gone when it ends."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tandem.bench.processes import HOST, free_port
from tandem.errors import JobError

_START_S = 10.0


class RedisChild:
    """A context manager; ``url`` is what clients take."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://{HOST}:{self._port}/0"

    @staticmethod
    def installed() -> bool:
        """Whether there is a redis-server here."""
        return shutil.which("redis-server") is not None

    def __enter__(self) -> RedisChild:
        command = ["redis-server", "--port", str(self._port), "--bind", HOST, "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.perf_counter() + _START_S
        while time.perf_counter() < deadline:
            try:
                socket.create_connection((HOST, self._port), 0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        self.stop()
        raise JobError("redis-server did not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
