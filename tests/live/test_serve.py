"""``tandem serve`` as a process: what it prints, how it ends, what it lets through on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, TypeAlias

import pytest

from tandem.models.folder import ModelFolder

pytestmark = pytest.mark.live

BODY = b'{"input": "hello"}'
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ENDS_S = 30

Answer: TypeAlias = tuple[int, dict[str, str], bytes]
"""Status, headers by lower-case name, body."""


class Served:
    """A running ``tandem serve``, past its five lines."""

    def __init__(self, process: subprocess.Popen[str], banner: list[str]) -> None:
        self.process = process
        self.banner = banner
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1/embeddings", "".join(banner))
        assert found, banner
        self.port = int(found[1])

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ENDS_S)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        answer = reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        connection.close()
        return answer

    def embed(self) -> Answer:
        return self.ask("POST", "/v1/embeddings", BODY)

    @contextmanager
    def half_asked(self) -> Iterator[Callable[[], int]]:
        """A request that the server has accepted and whose body is on its way; call it to send the rest."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ENDS_S)
        connection.connect()
        connection.sock.sendall(HEAD % len(BODY) + BODY[:5])
        self.wait_inflight(2)  # it, and the scrape that sees it

        def finish() -> int:
            connection.sock.sendall(BODY[5:])
            line: bytes = connection.sock.recv(65536).split(b"\r\n")[0]
            return int(line.split()[1])

        yield finish
        connection.close()

    def wait_inflight(self, count: int) -> None:
        """Ask until the server says that so many requests are in flight."""
        for _ in range(10_000):
            if f"tandem_inflight_requests {count}.0\n".encode() in self.ask("GET", "/metrics")[2]:
                return
        raise AssertionError(f"never {count} requests in flight")

    def signal(self, number: signal.Signals) -> None:
        """Send it, and wait until the server says that it drains."""
        self.process.send_signal(number)
        assert any("draining" in line for line in self._errors())

    def ends(self) -> tuple[int, str]:
        """Exit code, and what it still had to say."""
        errors = self.process.stderr.read() if self.process.stderr else ""
        return self.process.wait(ENDS_S), errors

    def _errors(self) -> IO[str]:
        assert self.process.stderr
        return self.process.stderr


@pytest.fixture
def serve(minilm_folder: ModelFolder) -> Iterator[Callable[..., Served]]:
    """``serve("--flag", "value", TANDEM_SETTING="value")`` starts a server on a free port."""
    started: list[subprocess.Popen[str]] = []

    def start(*flags: str, **env: str) -> Served:
        process = launch(str(minilm_folder.path), "--backend", "fake", "--port", "0", *flags, **env)
        started.append(process)
        assert process.stdout
        return Served(process, [process.stdout.readline() for _ in range(5)])

    yield start
    for process in started:
        process.kill()
        process.communicate()


def launch(*arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tandem", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def test_it_says_in_five_lines_what_is_served_where(serve: Callable[..., Served], minilm_folder: ModelFolder) -> None:
    served = serve("--served-model-name", "mini")
    text = "".join(served.banner)
    for word in ("serves mini (16 dimensions, 256 tokens", "/v1/embeddings", "/embed", "/v2/embed", "/docs", "/readyz"):
        assert word in text
    assert served.embed()[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_0(serve: Callable[..., Served], number: signal.Signals) -> None:
    served = serve()
    idle = HTTPConnection("127.0.0.1", served.port, timeout=ENDS_S)
    idle.request("GET", "/livez")
    assert idle.getresponse().read()
    served.signal(number)
    assert served.ends() == (0, "")
    idle.close()


def test_draining_answers_what_was_accepted_and_refuses_the_rest(serve: Callable[..., Served]) -> None:
    served = serve()
    with served.half_asked() as finish:
        served.signal(signal.SIGTERM)
        status, headers, body = served.embed()
        assert status == 503
        assert (headers["connection"], headers["retry-after"]) == ("close", "1")
        assert json.loads(body)["error"]["code"] == "draining"
        assert served.ask("GET", "/livez")[0] == 200
        assert served.ask("GET", "/readyz")[0] == 503
        assert served.process.poll() is None
        assert finish() == 200
    assert served.ends() == (0, "")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(serve: Callable[..., Served], second: signal.Signals) -> None:
    served = serve()
    with served.half_asked():
        served.signal(signal.SIGTERM)
        served.process.send_signal(second)
        code, errors = served.ends()
    assert code == 0
    assert "stopping at once" in errors


def test_draining_has_a_limit(serve: Callable[..., Served]) -> None:
    served = serve("--drain-timeout-s", "0.2")
    with served.half_asked():
        served.signal(signal.SIGTERM)
        code, errors = served.ends()
    assert code == 0
    assert "stopping with 1 requests unanswered: they took longer than 0.2 s" in errors
    assert "Traceback" not in errors


def test_keys_from_environment_and_file(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("from-file\n", "utf-8")
    served = serve("--api-key-file", str(tmp_path / "keys"), TANDEM_API_KEYS="from-env,other")
    assert served.embed()[0] == 401
    for key in ("from-file", "from-env", "other"):
        assert served.ask("POST", "/v1/embeddings", BODY, X_API_Key=key)[0] == 200
    assert served.ask("GET", "/metrics")[0] == 200


def test_the_access_log_is_json_on_standard_error(serve: Callable[..., Served]) -> None:
    served = serve("--access-log")
    served.embed()
    served.process.send_signal(signal.SIGTERM)
    _, errors = served.ends()
    line = json.loads(next(line for line in errors.splitlines() if line.startswith("{")))
    assert (line["path"], line["status"], line["texts"]) == ("/v1/embeddings", 200, 1)


def test_a_port_that_is_taken_is_told_at_once(serve: Callable[..., Served]) -> None:
    served = serve()
    second = launch("--backend", "fake", "--port", str(served.port))
    output, errors = second.communicate(timeout=ENDS_S)
    assert (second.returncode, output) == (2, "")
    assert f"can not listen on 127.0.0.1:{served.port}: Address already in use" in errors


def test_a_browser_draws_the_documentation(serve: Callable[..., Served], tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    served = serve()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000"]
    page = f"http://127.0.0.1:{served.port}/docs"
    done = subprocess.run([browser, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=60, check=True)
    for word in ('id="post_v1_embeddings"', 'id="post_embed"', 'id="post_v2_embed"', "encoding_format", "ready"):
        assert word in done.stdout
    assert "can not be read" not in done.stdout
