"""The real server over real sockets: official clients, and what only a socket can do."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from langchain_openai import OpenAIEmbeddings
from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import SecretStr

from tandem.clock import SystemClock
from tandem.engine import Engine
from tandem.errors import ConfigError
from tandem.server import App, HttpServer, listen
from tandem.telemetry import Metrics
from tests.http.conftest import MODEL, OPTIONS
from tests.http.loopback import Loopback, loopback, read_reply

DIMS = 16
BODY = b'{"input": "hello"}'
POST = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LAST = POST + b"Connection: close\r\n"


@pytest.fixture(scope="session")
def server(new_engine: Callable[[], Engine]) -> Iterator[Loopback]:
    """One server for every test that leaves it as it was."""
    with loopback(new_engine(), OPTIONS) as made:
        yield made


@pytest.fixture
def serve(new_engine: Callable[[], Engine]) -> Iterator[Callable[..., Loopback]]:
    """``serve(setting=value)`` gives a server of its own."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(loopback(new_engine(), msgspec.structs.replace(OPTIONS, **changes)))


@pytest.fixture
def openai(server: Loopback) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def embed(server: Loopback, text: str) -> list[float]:
    reply = httpx.post(f"{server.url}/v1/embeddings", json={"input": text})
    assert reply.status_code == 200, reply.text
    row: list[float] = reply.json()["data"][0]["embedding"]
    return row


# --- official clients, unchanged


def test_openai_embeds_texts(server: Loopback, openai: OpenAI) -> None:
    reply = openai.embeddings.create(input=["hello", "two words"], model=MODEL)
    assert [item.index for item in reply.data] == [0, 1]
    assert np.allclose(reply.data[0].embedding, embed(server, "hello"), atol=0)
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (7, 7)
    assert reply.model == MODEL


def test_openai_gets_the_same_numbers_as_floats_and_as_base64(openai: OpenAI) -> None:
    floats = openai.embeddings.create(input="hello", model=MODEL, encoding_format="float").data[0].embedding
    usual = openai.embeddings.create(input="hello", model=MODEL).data[0].embedding
    assert np.array_equal(np.array(floats, np.float32), np.array(usual, np.float32))


def test_openai_embeds_token_ids_like_the_text(openai: OpenAI) -> None:
    text = openai.embeddings.create(input="hello", model=MODEL).data[0].embedding
    ids = openai.embeddings.create(input=[[101, 7592, 102]], model=MODEL).data[0].embedding
    bare = openai.embeddings.create(input=[7592], model=MODEL).data[0].embedding
    assert text == ids == bare


def test_openai_cuts_dimensions_and_passes_own_fields(openai: OpenAI) -> None:
    extra = {"priority": "critical", "timeout_ms": 5000, "truncate": True}
    row = openai.embeddings.create(input="hello", model=MODEL, dimensions=4, extra_body=extra).data[0].embedding
    assert len(row) == 4
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)


def test_openai_lists_and_retrieves_models(openai: OpenAI) -> None:
    assert [model.id for model in openai.models.list()] == [MODEL]
    assert openai.models.retrieve(MODEL).id == MODEL


def test_openai_reads_our_errors(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as unknown:
        openai.embeddings.create(input="a", model="gpt-9")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(BadRequestError) as empty:
        openai.embeddings.create(input="", model=MODEL)
    assert empty.value.code == "empty_input"
    assert empty.value.request_id


def test_langchain_embeds_documents_and_queries(server: Loopback) -> None:
    embeddings = OpenAIEmbeddings(
        model=MODEL, base_url=f"{server.url}/v1", api_key=SecretStr("none"), check_embedding_ctx_length=False
    )
    documents = embeddings.embed_documents(["hello", "two words"])
    assert np.shape(documents) == (2, DIMS)
    assert np.array_equal(embeddings.embed_query("hello"), documents[0])


@pytest.mark.parametrize("path", ["", "/embed"])
def test_huggingface_hub_extracts_features(server: Loopback, path: str) -> None:
    client = InferenceClient(base_url=f"{server.url}{path}")
    rows = client.feature_extraction(
        ["hello", "word " * 400], normalize=True, truncate=True, truncation_direction="left", dimensions=8
    )
    assert rows.shape == (2, 8)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert np.array_equal(client.feature_extraction("hello")[0], np.array(embed(server, "hello"), np.float32))


def test_huggingface_hub_compares_sentences(server: Loopback) -> None:
    client = InferenceClient(base_url=server.url)
    same, other = client.sentence_similarity("hello", other_sentences=["hello", "two words"])
    assert same == pytest.approx(1, abs=1e-6)
    assert other < same


# --- what only a socket can do


def test_a_body_in_chunks(server: Loopback) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:6], BODY[6:]))
    reply = server.talk(POST + b"Transfer-Encoding: chunked\r\n\r\n", chunks, b"0\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_asks_first_is_told_to_go_on(server: Loopback) -> None:
    with server.connect() as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert read_reply(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_asks_first_is_spared_sending_too_much(server: Loopback) -> None:
    reply = server.talk(POST + b"Expect: 100-continue\r\nContent-Length: 50000000\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 413 ")


def test_fifty_megabytes_sent_anyway_get_their_answer(server: Loopback) -> None:
    reply = httpx.post(f"{server.url}/v1/embeddings", content=b" " * 50_000_000)
    assert reply.status_code == 413
    assert "limit of 1000000 bytes" in reply.json()["error"]["message"]
    assert embed(server, "hello")


def test_requests_in_a_pipeline_are_answered_in_order(server: Loopback) -> None:
    def request(text: bytes) -> bytes:
        body = b'{"input": "%b"}' % text
        return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body

    last = b"GET /v1/nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(request(b"one") + request(b"two words") + last)
        data = b""
        while part := connection.recv(65536):
            data += part
    replies = data.split(b"HTTP/1.1 ")[1:]
    assert [reply[:3] for reply in replies] == [b"200", b"200", b"404"]
    assert b'"prompt_tokens":3,' in replies[0]
    assert b'"prompt_tokens":4,' in replies[1]


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_gets_400(server: Loopback, garbage: bytes) -> None:
    assert server.talk(garbage).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("line", [b"X-Long: 0123456789\r\n", b"0123456789abcdef"])
def test_headers_without_bound_are_refused(server: Loopback, line: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-First: ")
        try:
            for _ in range(1000):
                connection.sendall(line * 1000)
        except OSError:
            pass
        else:
            pytest.fail("16 MB of headers were taken")


def test_headers_over_the_limit_get_431(server: Loopback) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-Long: 0123456789\r\n" * 4000 + b"\r\n"
    with server.connect() as connection:
        connection.sendall(head)
        assert connection.recv(13) == b"HTTP/1.1 431 "


def test_headers_over_the_limit_get_431_whatever_comes_with_them(server: Loopback) -> None:
    length = b"Content-Length: %d\r\n" % len(BODY)
    reply = server.talk(POST + length + b"X-Long: 0123456789\r\n" * 4000 + b"\r\n" + BODY)
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert reply.count(b"HTTP/1.1 ") == 1


def test_a_long_body_does_not_count_as_headers(server: Loopback) -> None:
    body = json.dumps({"input": "hello", "user": "x" * 200_000}).encode()
    requests = (POST + b"Content-Length: %d\r\n\r\n" % len(body) + body) * 2
    with server.connect() as connection:
        connection.sendall(requests)
        assert read_reply(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_idle_connection_is_closed_without_a_word(serve: Callable[..., Loopback]) -> None:
    server = serve(keep_alive_timeout_s=0.2)
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert read_reply(connection).startswith(b"HTTP/1.1 200 OK\r\n")
        assert connection.recv(100) == b""


def test_half_a_request_behind_a_whole_one_is_no_idling(serve: Callable[..., Loopback]) -> None:
    server = serve(header_read_timeout_s=0.2)
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + b"GET /livez HT")
        assert read_reply(connection).startswith(b"HTTP/1.1 200 OK\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_who_was_answered_before_his_body_came_idles_once_it_has(serve: Callable[..., Loopback]) -> None:
    server = serve(header_read_timeout_s=0.2, keep_alive_timeout_s=0.4)
    with server.connect() as connection:
        connection.sendall(b"POST /v1/nope HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        assert read_reply(connection).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"body")
        assert connection.recv(100) == b""


def test_every_reply_has_a_date(server: Loopback) -> None:
    for method, path, body in (("GET", "/livez", None), ("GET", "/nope", None), ("POST", "/v1/embeddings", BODY)):
        reply = httpx.request(method, server.url + path, content=body)
        assert parsedate_to_datetime(reply.headers["date"]).tzinfo is not None
        assert len(reply.headers.get_list("date")) == 1


def test_a_client_that_wants_no_more_is_let_go(server: Loopback) -> None:
    with server.connect() as connection:
        connection.sendall(LAST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        data = b""
        while part := connection.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["data"][0]["index"] == 0


def test_head_has_no_body(server: Loopback) -> None:
    with server.connect() as connection:
        connection.sendall(b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n" + LAST + b"Content-Length: 2\r\n\r\n{}")
        data = b""
        while part := connection.recv(65536):
            data += part
    first, second = data.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 OK\r\n")
    assert first.endswith(b"\r\n\r\n")
    assert second.startswith(b"400 ")


def test_headers_that_never_end_are_cut_off(serve: Callable[..., Loopback]) -> None:
    server = serve(header_read_timeout_s=0.2)
    with server.connect() as silent, server.connect() as slow:
        slow.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert silent.recv(100).startswith(b"HTTP/1.1 408 ")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_never_ends_is_cut_off(serve: Callable[..., Loopback]) -> None:
    server = serve(body_read_timeout_s=0.2)
    with server.connect() as connection:
        connection.sendall(POST + b'Content-Length: 100\r\n\r\n{"input')
        reply = read_reply(connection)
        assert reply.startswith(b"HTTP/1.1 408 ")
        assert b"request_timeout" in reply
        assert connection.recv(100) == b""


def test_a_reply_that_nobody_reads_is_given_up(serve: Callable[..., Loopback]) -> None:
    server = serve(header_read_timeout_s=0.2)
    body = json.dumps({"inputs": ["word " * 300] * 500}).encode()
    with server.connect() as connection:
        connection.sendall(b"POST /embed_all HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(12) == b"HTTP/1.1 200"  # 20 MB follow, more than all buffers on the way hold
        while server.server.connections:
            assert httpx.get(f"{server.url}/livez").status_code == 200


def test_an_idle_connection_does_not_hold_up_the_end(new_engine: Callable[[], Engine]) -> None:
    with loopback(new_engine(), OPTIONS) as server, server.connect() as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert read_reply(connection).startswith(b"HTTP/1.1 200 OK")
        server.server.stop()
        assert connection.recv(100) == b""


def test_clients_that_leave_leave_nothing_behind(server: Loopback) -> None:
    body = json.dumps({"input": ["word " * 200] * 500}).encode()
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            linger(connection)
    assert embed(server, "hello")
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "tandem_queue_texts 0.0\n" in metrics


def linger(connection: socket.socket) -> None:
    """Close with a reset, as a process that is killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.fixture
def tls_files(tmp_path: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([openssl, *made, *named, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return str(certificate), str(key)


def test_tls_by_file(serve: Callable[..., Loopback], tls_files: tuple[str, str]) -> None:
    certificate, key = tls_files
    server = serve(tls_cert_file=certificate, tls_key_file=key)
    assert server.url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=certificate)
    assert httpx.get(f"{server.url}/livez", verify=trusting).status_code == 200


def test_a_certificate_that_is_none_is_refused_before_serving(new_engine: Callable[[], Engine], tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate", "utf-8")
    file, clock = str(tmp_path / "cert.pem"), SystemClock()
    options = msgspec.structs.replace(OPTIONS, tls_cert_file=file, tls_key_file=file)
    app = App(new_engine(), options, Metrics(), clock)
    with listen("127.0.0.1", 0) as listener, pytest.raises(ConfigError, match="can not use the certificate"):
        HttpServer(app, options, listener, clock)


def test_a_taken_port_is_named(server: Loopback) -> None:
    host, port = server.address
    with pytest.raises(ConfigError, match=f"{host}:{port}: Address already in use"):
        listen(host, port)
