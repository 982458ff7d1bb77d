"""``tandem cache warm`` against a server that is busy, strict or gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest

from tandem.cli.cache_client import Patience, Server, ServerBusyError, ServerRefusedError
from tandem.cli.cache_warm import warm
from tandem.cli.main import main
from tandem.clock import ManualClock
from tandem.errors import ConfigError, JobError
from tests.cached_engines import cached_engine
from tests.engines import Device, make_engine
from tests.http.conftest import OPTIONS
from tests.http.loopback import loopback

Answer = tuple[int, dict[str, str], object]
GOOD: Answer = (200, {"x-tandem-cache": "miss"}, {})
KNOWN: Answer = (200, {"x-tandem-cache": "l1"}, {})


def refusal(status: int, words: str, **headers: str) -> Answer:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, {"error": {"message": words}}


def memory(entries: int, evictions: int, **rest: object) -> Answer:
    return 200, {}, {"rows": {"memory": {"entries": entries, "evictions": evictions}, **rest}}


class Strict(BaseHTTPRequestHandler):
    """Answers each list of texts by ``judge``; 0 is a connection that is closed without a word."""

    judge: ClassVar[Callable[[list[str]], Answer]]
    asked: ClassVar[list[list[str]]] = []
    stats: ClassVar[Answer]

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        self.asked.append(texts)
        self._send(type(self).judge(texts))

    def do_GET(self) -> None:
        assert self.path == "/v1/cache/stats"
        self._send(self.stats)

    def _send(self, answer: Answer) -> None:
        status, headers, body = answer
        if not status:
            self.close_connection = True
            return
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers | {"content-length": str(len(content))}).items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # Who asked may have left.
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not on the tests' output."""


@pytest.fixture
def url() -> Iterator[str]:
    Strict.asked = []
    Strict.judge = staticmethod(lambda texts: GOOD)
    Strict.stats = memory(entries=1000, evictions=0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Strict) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class Client:
    """A server as ``warm`` sees it, and what it waited for and said; its pauses move a clock on and take no time."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.clock = ManualClock()
        self.notes: list[str] = []
        self.pauses: list[float] = []
        self.server = Server(url, None, patience, self._pause, self.notes.append)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)


def in_turn(*answers: Answer) -> Callable[[list[str]], Answer]:
    left = list(answers)
    return lambda texts: left.pop(0) if len(left) > 1 else left[0]


def lines(folder: Path, *texts: str) -> Path:
    file = folder / "texts.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    return file


@pytest.fixture
def client(url: str) -> Client:
    return Client(url, Patience(tries=4, first_s=0.5, most_s=2.0, asked_s=60.0))


def test_a_busy_server_is_waited_for_as_long_as_it_asks(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = refusal(429, "overloaded: try again later", retry_after="7")
    Strict.judge = staticmethod(in_turn(busy, refusal(503, "draining"), (0, {}, None), GOOD))
    assert warm(client.server, lines(tmp_path, "a", "b"), client.clock) == 0
    assert client.pauses == [7.0, 1.0, 2.0]
    assert "429: overloaded: try again later; again in 7 s" in client.notes[0]
    assert Strict.asked == [["a", "b"]] * 4
    assert "2 texts are warm (0 were known before), 0 failed, in 10.0 s" in capsys.readouterr().out


def test_patience_has_an_end_and_says_how_far_it_came(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Strict.judge = staticmethod(in_turn(KNOWN, refusal(429, "full", retry_after="3600")))
    with pytest.raises(ServerBusyError, match=r"answered 429: full; run it again"):
        warm(client.server, lines(tmp_path, *map(str, range(300))), client.clock)
    assert client.pauses == [60.0] * 3, "no longer than a minute, whatever it asks for"
    assert "256 texts are warm (256 were known before), 0 failed" in capsys.readouterr().out


def test_one_bad_text_costs_no_other(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def judge(texts: list[str]) -> Answer:
        if len(texts) > 4:
            return refusal(400, "too many")
        return refusal(400, "input 0 is too long") if "bad" in texts else GOOD

    Strict.judge = staticmethod(judge)
    assert warm(client.server, lines(tmp_path, *"abcdef", "bad", *"ghi"), client.clock) == 5
    captured = capsys.readouterr()
    assert "9 texts are warm (0 were known before), 1 failed" in captured.out
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("line 7: ")
    assert "answered 400: input 0 is too long" in captured.err
    assert client.pauses == [], "to try again would not help"


def test_what_is_wrong_with_who_asks_ends_it_at_once(client: Client, tmp_path: Path) -> None:
    Strict.judge = staticmethod(in_turn(refusal(401, "an API key is required")))
    with pytest.raises(ServerRefusedError, match="answered 401: an API key is required"):
        warm(client.server, lines(tmp_path, "a", "b"), client.clock)
    assert len(Strict.asked) == 1


def test_a_server_that_never_answered_is_a_wrong_address(client: Client, tmp_path: Path) -> None:
    Strict.judge = staticmethod(in_turn((0, {}, None)))
    with pytest.raises(ConfigError, match=r"does not answer: .*name it with --url"):
        warm(client.server, lines(tmp_path, "a"), client.clock)
    assert client.pauses == []
    with pytest.raises(ConfigError, match="'localhost:8080' is no address"):
        Server("localhost:8080", None)


def test_a_reply_that_does_not_come_is_asked_for_again(url: str, tmp_path: Path) -> None:
    client = Client(url, Patience(reply_s=1.0))
    answered = Event()
    held: list[list[str]] = []

    def judge(texts: list[str]) -> Answer:
        if texts == ["slow"] and not held:
            held.append(texts)
            answered.wait(30)
        return GOOD

    Strict.judge = staticmethod(judge)
    client.server.embed(["first"])
    assert client.server.embed(["slow"]) == "miss"
    answered.set()
    assert "timed out" in client.notes[0]


def test_a_file_that_can_not_be_read_is_told(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("bytes", "gone"):
        with pytest.raises(JobError, match="can not be read"):
            warm(client.server, tmp_path / name, client.clock)
    assert not capsys.readouterr().out
    assert warm(client.server, lines(tmp_path, "", " "), client.clock) == 0
    assert "0 texts are warm" in capsys.readouterr().out


def test_a_server_that_keeps_nothing_is_refused(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Strict.judge = staticmethod(lambda texts: (200, {}, {}))
    with pytest.raises(JobError, match=r"its cache is off \(cache: off\)"):
        warm(client.server, lines(tmp_path, *map(str, range(300))), client.clock)
    assert len(Strict.asked) == 1
    assert "warm" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stats", "told"),
    [
        (memory(entries=9, evictions=291), True),
        (memory(entries=9, evictions=0), False),  # The file has each text many times.
        (memory(entries=300, evictions=5), False),
        (memory(entries=9, evictions=291, second_level_name="disk"), False),
        ((200, {}, {"rows": None}), False),
    ],
)
def test_a_memory_that_has_no_room_for_them_is_told(
    stats: Answer, told: bool, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Strict.stats = stats
    assert warm(client.server, lines(tmp_path, *map(str, range(300))), client.clock) == 0
    captured = capsys.readouterr()
    assert ("memory holds 9 rows in all, and 291 made room" in captured.out) == told
    assert not captured.err


@pytest.mark.parametrize("stats", [refusal(403, "not for you"), (200, {}, {"rows": {}}), (200, {}, [])])
def test_statistics_that_are_not_to_be_had_cost_nothing_but_that_line(
    stats: Answer, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Strict.stats = stats
    assert warm(client.server, lines(tmp_path, "a"), client.clock) == 0
    captured = capsys.readouterr()
    assert "1 texts are warm" in captured.out
    assert "can not be told" in captured.err


def test_a_real_server_whose_memory_is_small_or_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lines(tmp_path, *(f"w{first} w{second}" for first in range(10) for second in range(10)))
    with loopback(cached_engine(Device(), cache_bytes=40_000), OPTIONS) as server:
        assert warm(Server(server.url, None), file, ManualClock()) == 0
    assert "these texts are likely not all there" in capsys.readouterr().out
    with loopback(cached_engine(Device()), OPTIONS) as server:
        assert warm(Server(server.url, None), file, ManualClock()) == 0
    assert "not all there" not in capsys.readouterr().out
    with loopback(make_engine(Device()), OPTIONS) as server, pytest.raises(JobError, match="its cache is off"):
        warm(Server(server.url, None), file, ManualClock())


def test_the_help_says_for_whom_it_warms(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cache", "warm", "--help"])
    assert "known to whoever asks with the same key, and to no other" in " ".join(capsys.readouterr().out.split())
