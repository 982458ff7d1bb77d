"""What can not be meant is said at the start, and no message gives a password away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tandem.caching.redis import RedisOptions, redis_store
from tandem.clock import ManualClock
from tandem.errors import ConfigError
from tests.entry_rows import records


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must begin with redis://, rediss:// or unix://"),
        ("localhost:6379", "must begin with"),
        ("http://localhost", "must begin with"),
        ("redis://", "names no host"),
        ("redis://:secret@", "names no host"),
        ("redis://host:secret", "can not be read"),
        ("redis://:pass/secret@host:6379", "can not be read"),
        ("redis://:[secret@host", "can not be read"),
        ("redis://host/secret", "ends in the number of a database"),
        ("redis://host?db=secret", "can not be read"),
        ("redis://host?decode_responses=true", "options that are not known here: decode_responses"),
        ("redis://host?ssl_ca_certs=secret", "does not go with its scheme"),
        ("unix://", "has no path"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")) as caught:
        redis_store(RedisOptions(url=url), records(), ManualClock())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://user:p%40ss@host:6380/3",
        "redis://[::1]:6379",
        "rediss://host/1?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=2",
        "unix://:secret@/run/redis.sock",
    ],
)
async def test_a_url_that_redis_py_takes_is_taken(url: str) -> None:
    store = redis_store(RedisOptions(url=url), records(), ManualClock())
    assert store.state() == "ok"
    await store.close()


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
def test_a_tls_file_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    url = f"rediss://:secret@host?{name}={tmp_path / 'gone.pem'}"
    with pytest.raises(ConfigError, match=rf"can not read {name}, '.*gone\.pem': No such file") as caught:
        redis_store(RedisOptions(url=url), records(), ManualClock())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile"])
def test_a_tls_file_that_is_no_certificate_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "note.pem").write_text("no certificate", "utf-8")
    url = f"rediss://:secret@host?{name}={tmp_path / 'note.pem'}"
    with pytest.raises(ConfigError, match=r"can not use the TLS options of its URL, '.*note\.pem'") as caught:
        redis_store(RedisOptions(url=url), records(), ManualClock())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", ["ssl_min_version=5", "ssl_ciphers=none", "ssl_cert_reqs=perhaps", "ssl_more=1"])
def test_a_tls_option_that_makes_no_sense_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="TLS option"):
        redis_store(RedisOptions(url=f"rediss://host?{option}"), records(), ManualClock())


@pytest.mark.parametrize(
    "options",
    [
        RedisOptions(url="redis://host", timeout_s=0.0),
        RedisOptions(url="redis://host", ttl_s=0.0),
        RedisOptions(url="redis://host", ttl_jitter=1.0),
        RedisOptions(url="redis://host", backlog_rows=-1),
    ],
)
def test_options_that_make_no_sense_are_refused(options: RedisOptions) -> None:
    with pytest.raises(ConfigError):
        redis_store(options, records(), ManualClock())
