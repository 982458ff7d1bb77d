from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec.structs import replace

from tandem.bench.context import kept_rows
from tandem.bench.load import MAX_REQUESTS, MAX_SECONDS, LoadJob, Loop, check, run_load, write_bodies
from tandem.bench.load_worker import read_head
from tandem.errors import ConfigError, JobError


class Echo(BaseHTTPRequestHandler):
    """Answers an embedding of the input's length; "bad" is refused, "bye" loses its connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        if text == "bye":
            self.close_connection = True
            return
        body = json.dumps({"data": [{"index": 0, "embedding": [float(len(text)), 1.0]}]}).encode()
        self.send_response(400 if text == "bad" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Nothing: a test's output is its own."""


@pytest.fixture
def server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd.server_port
        httpd.shutdown()


@pytest.fixture
def job(server: int, tmp_path: Path) -> LoadJob:
    bodies = tmp_path / "bodies"
    write_bodies(bodies, [{"input": "a" * n} for n in range(1, 6)])
    return LoadJob(host="127.0.0.1", port=server, path="/e", bodies=str(bodies), connections=3, requests=12)


def test_a_closed_loop_sends_each_request_once_and_keeps_the_first_answers(job: LoadJob, tmp_path: Path) -> None:
    result = run_load(replace(job, keep=str(tmp_path / "kept")))
    assert (result.ok, result.errors) == (12, {})
    assert 0 < result.latency.p50_s <= result.latency.p99_s <= result.latency.max_s <= result.seconds
    assert kept_rows(tmp_path / "kept").tolist() == [[float(n), 1.0] for n in range(1, 6)]


def test_an_open_loop_sends_what_its_seed_says(job: LoadJob) -> None:
    opened = replace(job, loop=Loop.OPEN, rate=400.0, seconds=0.25, requests=MAX_REQUESTS)
    first, again, other = (run_load(replace(opened, seed=seed)) for seed in (1, 1, 2))
    assert first.ok == again.ok
    assert 60 < first.ok < 140
    assert first.ok != other.ok


def test_failures_are_counted_by_kind(job: LoadJob, tmp_path: Path) -> None:
    write_bodies(tmp_path / "mixed", [{"input": "fine"}, {"input": "bad"}])
    result = run_load(replace(job, bodies=str(tmp_path / "mixed")))
    assert result.ok + result.errors["400"] == 12
    assert "embedding" in result.first_error
    write_bodies(tmp_path / "lost", [{"input": "bye"}])
    result = run_load(replace(job, bodies=str(tmp_path / "lost")))
    assert (result.ok, result.errors) == (0, {"connection lost": 3})


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "::"])
def test_other_machines_are_refused(job: LoadJob, host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        run_load(replace(job, host=host))


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": MAX_SECONDS + 1},
        {"seconds": 0},
        {"requests": MAX_REQUESTS + 1},
        {"connections": 0},
        {"connections": 5000},
        {"loop": Loop.OPEN, "rate": 0.0},
        {"loop": Loop.OPEN, "rate": 1e9},
    ],
)
def test_a_load_without_bounds_is_refused(job: LoadJob, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        check(replace(job, **change))


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path, job: LoadJob) -> None:
    from tandem.bench.processes import free_port

    with pytest.raises(JobError, match="load generator"):
        run_load(replace(job, port=free_port()))


def test_a_head_gives_status_and_length() -> None:
    assert read_head(b"HTTP/1.1 503 Service Unavailable\r\ncontent-LENGTH: 17\r\n") == (503, 17)
    with pytest.raises(ValueError, match="Content-Length"):
        read_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")
