"""Rows over TLS, from a Redis that has a certificate: whole, to nobody else, and to no one who is not known."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tandem.caching.redis import RedisOptions, redis_store
from tandem.clock import SystemClock
from tests.entry_rows import entries, keys, records, right
from tests.event_loops import EVENT_LOOPS
from tests.live.redis_stores import PATIENCE_S, fill, filled, opened, until
from tests.redis_server import RedisServer, has_tls

pytestmark = pytest.mark.live

HOST = "127.0.0.1"


@pytest.fixture(params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def certified(folder: Path, name: str) -> Path:
    """A certificate for the host, and its key beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{HOST}"]
    files = ["-out", str(folder / f"{name}.pem"), "-keyout", str(folder / f"{name}.key")]
    subprocess.run([openssl, *made, *named, *files], check=True, capture_output=True)
    return folder / f"{name}.pem"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """With the certificates ``ours`` and ``theirs``. Shorter than tmp_path: a socket's path has 108 bytes at most."""
    if not has_tls():
        pytest.skip("this redis-server was built without TLS")
    with TemporaryDirectory() as name:
        for whose in ("ours", "theirs"):
            certified(Path(name), whose)
        yield Path(name)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[RedisServer, str]]:
    """A Redis with the certificate ``ours``, and what comes after the scheme and a login in its URL."""
    with socket.socket() as held:
        # Bound as Redis binds it, which may therefore listen there; to anybody else the port is taken.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((HOST, 0))
        port = held.getsockname()[1]
        files = ["--tls-cert-file", str(folder / "ours.pem"), "--tls-key-file", str(folder / "ours.key")]
        files += ["--tls-ca-cert-file", str(folder / "ours.pem")]
        if "--tls-auth-clients" not in options:
            files += ["--tls-auth-clients", "no"]
        with RedisServer(folder, ["--bind", HOST, "--tls-port", str(port), *files, *options]) as server:
            yield server, f"{HOST}:{port}/0?ssl_ca_certs={folder / 'ours.pem'}"


async def test_many_rows_come_back_whole_to_many_at_once(folder: Path) -> None:
    with serving(folder) as (_, place):
        known, form = keys(300), records(dims=1024)
        options = RedisOptions(url=f"rediss://{place}", timeout_s=PATIENCE_S)
        store = redis_store(options, form, SystemClock())
        await store.put(known, entries(known, 1024))
        await store.flush()
        assert all(right(known, await store.get(known))), "1.2 MB in one answer"
        some = [known[start : start + 10] for start in range(0, 300, 10)]
        for asked, found in zip(some, await asyncio.gather(*map(store.get, some)), strict=True):
            assert all(right(asked, found))
        assert store.state() == "ok"
        await store.close()


async def test_one_that_stops_and_dies_is_given_up_and_found_again(folder: Path) -> None:
    with serving(folder) as (server, place):
        async with opened(f"rediss://{place}", timeout_s=0.2) as store:
            known = await fill(store, 200)
            for _ in range(3):
                server.suspend()
                assert await store.get(known[:100]) == [None] * 100
                assert store.state().startswith("breaker open: did not answer within 200 ms")
                server.resume()
                await until(store, lambda state: state == "ok")
                await asyncio.wait_for(filled(store, known[100:]), PATIENCE_S)
            server.kill()
            await until(store, lambda state: "can not be reached" in state)
            server.start()
            await until(store, lambda state: state == "ok")
            assert not any(await store.get(known))
            await store.put(known, entries(known))
            await asyncio.wait_for(filled(store, known), PATIENCE_S)
            assert store.statistics()["rejected"] == 0, "no answer came to another question than its own"


async def test_a_handshake_that_does_not_end_is_given_up(folder: Path) -> None:
    with serving(folder) as (server, place):
        server.suspend()
        async with opened(f"rediss://{place}", timeout_s=0.2) as store:
            assert await store.get(keys(1)) == [None]
            assert store.state().startswith("breaker open: did not answer within 200 ms")
            server.resume()
            await until(store, lambda state: state == "ok")
            known = await fill(store)
            assert all(right(known, await store.get(known)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("ours.pem", "theirs.pem"), "can not be reached: .*certificate verify failed"),
        ((HOST, "localhost"), "can not be reached: .*ostname mismatch"),
        (("rediss", "redis"), "can not be reached|does not speak like a Redis"),
    ],
    ids=["another's certificate", "another name", "in the clear"],
)
async def test_who_is_not_proven_to_be_the_one_is_not_asked(folder: Path, change: tuple[str, str], words: str) -> None:
    with serving(folder) as (_, place):
        url = f"rediss://{place}".replace(*change)
        async with opened(url.partition("?")[0] if url.startswith("redis:") else url) as store:
            assert await store.get(keys(2)) == [None, None]
            assert re.match(f"breaker open: ({words})", store.state()), store.state()


async def test_it_logs_in_with_a_password_and_its_own_certificate(folder: Path) -> None:
    ours = f"&ssl_certfile={folder / 'ours.pem'}&ssl_keyfile={folder / 'ours.key'}"
    with serving(folder, "--requirepass", "open-sesame", "--tls-auth-clients", "yes") as (_, place):
        async with opened(f"rediss://:open-sesame@{place}") as store:
            assert await store.get(keys(1)) == [None]
            assert store.state().startswith("breaker open: can not be reached"), "it has no certificate"
        async with opened(f"rediss://{place}{ours}") as store:
            assert await store.get(keys(1)) == [None]
            assert store.state().startswith("breaker open: refuses our login"), "it has no password"
        async with opened(f"rediss://:open-sesame@{place}{ours}") as store:
            known = await fill(store)
            assert all(right(known, await store.get(known)))
