"""A hit over HTTP, beside an ASGI handler that decodes the same body, encodes as many floats, and does nothing else."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import orjson

from tandem.bench.load import LoadJob, LoadResult
from tandem.bench.processes import HOST, Server, ServerSpec, tandem_server
from tandem.bench.wrk import closed_loop

Message: TypeAlias = MutableMapping[str, Any]

CONNECTIONS = 64
_DIMS = 384
_ROW = np.linspace(-1, 1, _DIMS, dtype=np.float32)
_HEADERS = [(b"content-type", b"application/json")]


class _Body(msgspec.Struct):
    input: str
    model: str


_decode = msgspec.json.Decoder(_Body).decode


async def bare(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The least that an embedding server can do: read, decode, encode 384 floats, send."""
    if scope["type"] != "http":
        return
    _decode((await receive())["body"])
    body = b'{"data":[{"embedding":%b}]}' % orjson.dumps(_ROW, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def bare_server() -> ServerSpec:
    """uvicorn as Tandem runs it, around ``bare``."""
    command = [sys.executable, "-m", "uvicorn", "tandem.bench.cache_http:bare", "--host", HOST, "--port", "{port}"]
    options = [
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--lifespan",
        "off",
        "--log-level",
        "error",
    ]
    return ServerSpec("an empty ASGI handler", [*command, *options], "/v1/embeddings", "none")


def hit_server(model: str, precision: str, threads: int) -> ServerSpec:
    """Tandem with its memory cache on."""
    return tandem_server(model, precision, threads, {"cache": "exact"})


def hits(server: Server, texts: list[str], seconds: float, work: Path) -> LoadResult:
    """A closed loop of 64 callers over ``texts``, each of which was asked for before. Raises JobError."""
    bodies = work / "hits.bodies"
    requests = [{"model": server.spec.model, "input": text} for text in texts]
    bodies.write_bytes(b"\n".join(map(msgspec.json.encode, requests)) + b"\n")
    for request in requests:
        server.post(request)
    job = LoadJob(
        host=HOST,
        port=server.port,
        path=server.spec.path,
        bodies=str(bodies),
        connections=CONNECTIONS,
        seconds=seconds,
    )
    return closed_loop(job, work)
