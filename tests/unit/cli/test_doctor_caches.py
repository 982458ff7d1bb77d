"""What ``tandem doctor`` says of the caches, with a real Redis and real folders."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tandem.cli import checkup_caches
from tandem.cli.checkup_caches import cache_findings, without_password
from tandem.cli.main import main
from tandem.config import Settings
from tests.engines import write_word_model
from tests.redis_server import RedisServer


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return str(write_word_model(tmp_path / "tiny"))


class Doctor:
    """Asks it, and keeps all that it printed."""

    def __init__(self, model: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._words = [model, "--backend", "fake", "--port", "0"]
        self._capsys = capsys
        self.printed = ""

    def caches(self, *words: str) -> dict[str, tuple[str, str]]:
        """Words and advice by part."""
        code, found = self.all(*words)
        assert code == 0, found["problems"]
        return {one["name"]: (one["words"], one["advice"]) for one in found["caches"]}

    def problem(self, *words: str) -> str:
        code, found = self.all(*words)
        assert code == 4
        (problem,) = found["problems"]
        return str(problem)

    def all(self, *words: str) -> tuple[int, dict[str, Any]]:
        code = main(["doctor", "--json", *self._words, *words])
        self.printed = self._capsys.readouterr().out
        return code, json.loads(self.printed)

    def shown(self, *words: str) -> str:
        main(["doctor", *self._words, *words])
        return self._capsys.readouterr().out


@pytest.fixture
def doctor(model: str, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(model, capsys)


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def restarted(server: RedisServer, *options: str) -> RedisServer:
    server.kill()
    server.options = list(options)
    server.start()
    return server


def test_as_by_default(doctor: Doctor) -> None:
    found = doctor.caches()
    assert set(found) == {"rows", "level 2", "near", "semantic", "index"}
    assert "268.4 MB of rows as float32" in found["rows"][0]
    assert found["level 2"][0].startswith("off")
    assert found["index"][0].startswith("usearch 2.")
    assert not any(advice for _, advice in found.values())
    off = doctor.caches("--cache", "off", "--semantic-cache", "off", "--cache-l2", "disk")
    assert {words.partition(";")[0].partition(" ")[0] for words, _ in off.values()} == {"off"}


def test_a_disk_that_is_too_small_or_no_folder(doctor: Doctor, tmp_path: Path) -> None:
    words = ("--cache-l2", "disk", "--semantic-cache", "disk", "--cache-dir")
    good = doctor.caches(*words, str(tmp_path / "new"))
    assert str(tmp_path / "new" / "rows") in good["level 2"][0]
    assert str(tmp_path / "new" / "semantic") in good["semantic"][0]
    assert good["level 2"][1] == good["semantic"][1] == ""
    assert not (tmp_path / "new").exists(), "it looks, and makes nothing"
    full = doctor.caches(*words, str(tmp_path), "--cache-disk-bytes", str(1 << 50))
    assert "lower cache_disk_bytes" in full["level 2"][1]
    (tmp_path / "file").write_text("no folder")
    assert "is no folder" in doctor.caches(*words, str(tmp_path / "file"))["level 2"][1]


NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root is refused nothing, so that it must be someone else."""
    user = os.geteuid()
    if not user:
        os.setresuid(NOBODY, NOBODY, user)
    try:
        yield
    finally:
        if not user:
            os.setresuid(user, user, user)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that all may enter, as ``tmp_path`` is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in folder.iterdir():
            path.chmod(0o755)


def on_disk(folder: Path) -> tuple[str, str]:
    problems: list[str] = []
    settings = Settings(cache_dir=str(folder), cache_l2="disk", semantic_cache="off")
    with as_nobody():
        found = {one.name: one for one in cache_findings(settings, None, None, problems)}
    assert not problems
    return found["level 2"].words, found["level 2"].advice


def test_a_folder_that_one_may_not_enter_is_a_finding(open_folder: Path) -> None:
    locked = open_folder / "locked"
    (locked / "in").mkdir(parents=True)
    locked.chmod(0o600)
    words, advice = on_disk(locked / "in")
    assert words == f"disk, {locked}/in/rows: it can not be looked at: Permission denied"
    assert "name another with cache_dir" in advice
    (open_folder / "rows").mkdir()
    (open_folder / "rows").chmod(0o222)
    words, advice = on_disk(open_folder)
    assert "/rows: 0 B of up to" in words
    assert "is not writable" in advice


def test_files_that_can_not_be_looked_at_do_not_count(open_folder: Path) -> None:
    rows = open_folder / "rows"
    (rows / "locked").mkdir(parents=True)
    (rows / "data").write_bytes(bytes(5000))
    (rows / "locked" / "more").write_bytes(bytes(5000))
    (rows / "locked").chmod(0o644)
    try:
        words, _ = on_disk(open_folder)
    finally:
        (rows / "locked").chmod(0o755)
    assert "/rows: 5.0 kB of up to" in words


def test_a_name_that_no_disk_takes_leaves_the_rest_of_the_report(doctor: Doctor) -> None:
    found = doctor.caches("--semantic-cache", "disk", "--cache-dir", f"/{'x' * 300}")
    assert "can not be looked at: File name too long" in found["semantic"][0]
    assert "cache_dir" in found["semantic"][1]
    assert set(found) == {"rows", "level 2", "near", "semantic", "index"}


def test_more_memory_than_there_is(doctor: Doctor) -> None:
    assert "lower cache_bytes" in doctor.caches("--cache-bytes", str(1 << 50))["rows"][1]


def test_a_redis_and_how_it_makes_room(doctor: Doctor, redis: RedisServer) -> None:
    words, advice = doctor.caches("--cache-l2", redis.url)["level 2"]
    assert f"{redis.url} answers: Redis " in words
    assert "set maxmemory, and allkeys-lru" in advice
    restarted(redis, "--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
    assert "set maxmemory-policy to allkeys-lru" in doctor.caches("--cache-l2", redis.url)["level 2"][1]
    restarted(redis, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    words, advice = doctor.caches("--cache-l2", redis.url, "--semantic-cache-redis", redis.url)["shared"]
    assert "of 104.9 MB, allkeys-lru" in words
    assert advice == ""
    restarted(redis, "--maxmemory", "1")
    assert "is full" in doctor.caches("--cache-l2", redis.url)["level 2"][0]


def test_a_redis_that_refuses_or_is_not_there(doctor: Doctor, redis: RedisServer) -> None:
    restarted(redis, "--requirepass", "s3cret")
    url = redis.url.replace("unix://", "unix://:wr0ng@")
    words, advice = doctor.caches("--cache-l2", url)["level 2"]
    assert "refuses our login" in words
    assert "user and password" in advice
    assert "wr0ng" not in doctor.printed
    assert "wr0ng" not in doctor.shown("--cache-l2", url, "--semantic-cache-redis", url)
    assert "answers: Redis" in doctor.caches("--cache-l2", url.replace("wr0ng", "s3cret"))["level 2"][0]
    redis.kill()
    words, advice = doctor.caches("--cache-l2", redis.url)["level 2"]
    assert "does not answer" in words
    assert "all are misses" in advice
    redis.start()
    redis.suspend()
    words, _ = doctor.caches("--cache-l2", redis.url)["level 2"]
    redis.resume()
    assert "does not answer" in words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cache-l2", "memcached"), "not off, disk, nor the URL of a Redis"),
        (("--cache-l2", "http://x"), "must begin with redis://"),
        (("--semantic-cache-redis", "http://x"), "is no URL of a Redis"),
        (("--semantic-cache", "off", "--semantic-cache-redis", "redis://h"), "no semantic cache to share"),
        (("--semantic-cache-secret-file", "/no/secret"), "nothing is shared"),
        (("--semantic-cache-redis", "redis://127.0.0.1:1", "--semantic-cache-secret-file", "/no/x"), "can not be read"),
        (("--admin-key-file", "/no/keys"), "/no/keys"),
    ],
)
def test_what_keeps_a_server_from_starting_is_a_problem(doctor: Doctor, words: tuple[str, ...], told: str) -> None:
    assert told in doctor.problem(*words)


def test_without_the_index_library_it_says_what_that_costs(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup_caches, "_installed", lambda name: None)
    words, advice = doctor.caches()["index"]
    assert "not installed" in words
    assert "pip install usearch" in advice
    assert "needs the package lmdb" in doctor.problem("--cache-l2", "disk")


def test_near_duplicates_are_described(doctor: Doctor) -> None:
    words, advice = doctor.caches("--near-duplicates", "minhash", "--near-cosine", "0.9")["near"]
    assert words == "minhash, at most 5.0% under a cosine of 0.9"
    assert "tandem cache curve" in advice
    assert "-> for requests that say cache: near" in doctor.shown("--near-duplicates", "minhash")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("disk", "disk"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:p%40ss@host:6379/0", "redis://***@host:6379/0"),
        ("rediss://user:p@ss/word@host/1?password=x", "rediss://***@host/1"),
        ("redis://host?password=x", "redis://host"),
        ("unix://:p@/run/redis.sock?db=1", "unix://***@/run/redis.sock"),
    ],
)
def test_no_password_is_shown(value: str, shown: str) -> None:
    assert without_password(value) == shown
