"""``tandem cache``: against a server that answers by a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from tandem.cli.main import main

TIER = {"texts": 3, "tokens": 12, "text_share": 0.75, "token_share": 0.8, "p50_s": 3e-6, "p99_s": None}
STATS = {
    "rows": {
        "tiers": {"l1": TIER, "miss": TIER},
        "text_hit_rate": 0.75,
        "token_hit_rate": 0.8,
        "memory": {"entries": 4, "bytes": 1 << 20, "budget_bytes": 1 << 28, "evictions": 2},
        "flights": 0,
        "joined": 7,
        "second_level": {"hits": 5, "errors": 0},
        "second_level_name": "redis",
        "state": "breaker open: it is stopped",
    }
}


class Table(BaseHTTPRequestHandler):
    """Answers what the test put there, and keeps what was asked."""

    answers: ClassVar[dict[tuple[str, str], tuple[int, object]]] = {}
    asked: ClassVar[list[tuple[str, str, Any, str | None]]] = []

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.asked.append((self.command, self.path, body, self.headers.get("authorization")))
        status, answer = self.answers.get((self.command, self.path), (404, {"error": "no"}))
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-tandem-cache", "miss")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not on the tests' output."""


@pytest.fixture
def url() -> Iterator[str]:
    Table.answers = {
        ("GET", "/v1/cache/stats"): (200, STATS),
        ("POST", "/v1/cache/clear"): (200, {"cleared": "rows of m"}),
        ("POST", "/v1/embeddings"): (200, {}),
    }
    Table.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Table) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_stats_are_shown_for_people(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "stats", "--url", url]) == 0
    shown = capsys.readouterr().out
    for words in (
        "75.0%",
        "80.0%",
        "4 rows, 1.0 MiB of 256.0 MiB, 2 made room",
        "7 texts joined",
        "hits 5",
        "redis",
        "it is stopped",
    ):
        assert words in shown
    assert main(["cache", "stats", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATS


def test_clear_says_what_was_forgotten(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "--url", url + "/"]) == 0
    assert "rows of m" in capsys.readouterr().out


def test_warm_sends_each_text_in_the_background_with_the_key(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TANDEM_API_KEYS", "secret,other")
    file = tmp_path / "texts.jsonl"
    file.write_text('plain\n\n{"text": "in json"}\n{"other": 1}\n{no json\n', encoding="utf-8")
    assert main(["cache", "warm", str(file), "--url", url]) == 0
    captured = capsys.readouterr()
    assert "3 texts are warm (0 were known before), 0 failed" in captured.out
    assert "1 line had no text" in captured.out
    assert "line 4: no field" in captured.err
    (method, path, body, key), *looks = Table.asked
    assert looks == [("GET", "/v1/cache/stats", None, "Bearer secret")]
    assert (method, path, key) == ("POST", "/v1/embeddings", "Bearer secret")
    assert body["input"] == ["plain", "in json", "{no json"]
    assert body["priority"] == "background"


def test_what_goes_wrong_is_told(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "stats", "--url", "http://127.0.0.1:1"]) == 2
    assert "--url" in capsys.readouterr().err
    Table.answers[("GET", "/v1/cache/stats")] = (401, {"error": "an API key is required"})
    assert main(["cache", "stats", "--url", url]) == 5
    assert "answered 401: an API key is required" in capsys.readouterr().err
    Table.answers[("GET", "/v1/cache/stats")] = (200, b"<html>")
    assert main(["cache", "stats", "--url", url]) == 5
    assert "is that a tandem server?" in capsys.readouterr().err
    assert main(["cache", "warm", str(tmp_path / "absent"), "--url", url]) == 5
