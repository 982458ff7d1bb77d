"""A server in this process over an engine made of functions, and a client that speaks ASGI to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import httpx
import msgspec
import numpy as np
import pytest

from tandem.build import build_engine
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.errors import InvalidInput, TextTooLong
from tandem.models.folder import ModelFolder
from tandem.models.tokenizer import Piece
from tandem.server.app import App
from tandem.server.options import ServerOptions
from tandem.telemetry import Metrics
from tandem.types import EmbedRequest, EmbedResult, Output, Rows, StageTimes, Tier

DIMS, VOCAB, MAX_TOKENS = 8, 1000, 16
MODEL = "all-MiniLM-L6-v2"
"""What the real engine serves its model as."""

OPTIONS = ServerOptions(
    served_model_names=(),
    api_keys=(),
    admin_keys=(),
    max_body_bytes=1_000_000,
    max_batch_items=2048,
    max_concurrent_requests=512,
    max_batch_tokens=4096,
    auto_truncate=True,
    cors_origins=(),
    tls_cert_file=None,
    tls_key_file=None,
    readiness_interval_s=10.0,
    drain_timeout_s=10.0,
    request_timeout_s=None,
    header_read_timeout_s=10.0,
    body_read_timeout_s=10.0,
    keep_alive_timeout_s=10.0,
    docs=True,
    metrics_open=True,
    access_log=False,
    cache_tenants="key",
)
"""Limits a test can reach; what a test is about it replaces by name."""


@pytest.fixture(scope="session")
def new_engine(minilm_folder: ModelFolder) -> Callable[[], Engine]:
    """Makes engines with the real tokenizer and a device that computes nothing."""
    settings = Settings(
        model=str(minilm_folder.path),
        served_model_name=(MODEL,),
        backend="fake",
        use_hub=False,
        use_package_index=False,
    )
    return lambda: build_engine(settings)


class FakeModel(msgspec.Struct, frozen=True):
    id: str = "acme/tiny-embed"
    aliases: tuple[str, ...] = ("tiny-embed", "tiny")
    dims: int = DIMS
    hidden: int = DIMS
    max_tokens: int = MAX_TOKENS
    tier: Tier = Tier.FP32
    device: str = "cpu"
    dtype: str = "float32"
    pooling: str = "mean"
    prompts: dict[str, str] = msgspec.field(default_factory=lambda: {"query": "query: ", "passage": "passage: "})
    default_prompt_name: str | None = None
    fingerprint: str = "f00d"


class FakeBacklog(msgspec.Struct, frozen=True):
    queued_texts: int = 3
    queued_tokens: int = 30


class FakeTokenizer:
    """A word is a token, its id the word's length; [CLS] is 1 and [SEP] is 2."""

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[Piece]:
        pieces, at = [], 0
        for word in text.split():
            start = text.index(word, at)
            at = start + len(word)
            pieces.append(Piece(len(word) + 10, word, False, start, at))
        if not add_special_tokens:
            return pieces
        return [Piece(1, "[CLS]", True, None, None), *pieces, Piece(2, "[SEP]", True, None, None)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        _check_ids(ids)
        return " ".join(f"t{i}" for i in ids if i > 9 or not skip_special_tokens)


class FakeEngine:
    """An engine by the contract: vectors are a function of text and prompt, errors are those of the tree."""

    def __init__(self) -> None:
        self.model = FakeModel()
        self.tokenizer = FakeTokenizer()
        self.requests: list[EmbedRequest] = []
        self.before: Callable[[EmbedRequest], object] = lambda request: None
        """Called before each answer: it may raise, or return something to wait for."""
        self.ready = (True, "warm")
        self.arrived = asyncio.Event()
        """Set when a request has come in."""
        self.cancelled = 0
        self.probes = 0
        self.recall = None

    async def start(self) -> None: ...
    async def drain(self) -> None: ...
    async def close(self, *, at_once: bool = False) -> None: ...

    async def probe(self) -> None:
        self.probes += 1
        self.before(EmbedRequest(inputs=["probe"]))

    def readiness(self) -> tuple[bool, str]:
        return self.ready

    def backlog(self) -> FakeBacklog:
        return FakeBacklog()

    async def ask(self, request: EmbedRequest) -> EmbedResult:
        self.requests.append(request)
        self.arrived.set()
        prompt = self._prompt(request)
        counts = [_count(item, prompt, request.truncate) for item in request.inputs]
        wait = self.before(request)
        if isinstance(wait, asyncio.Event):
            try:
                await wait.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        dims = request.dimensions or DIMS
        if dims > DIMS:
            raise InvalidInput(f"dimensions is {dims}, the model has {DIMS}", param="dimensions")
        times = StageTimes(0.001, 0.002, 0.003, 0.006)
        if request.output is Output.TOKENS:
            return EmbedResult(list(map(vector, request.inputs, counts)), counts, times)
        rows = np.concatenate([vector(prompt + item if isinstance(item, str) else item) for item in request.inputs])
        if dims < DIMS:
            rows = _unit(rows[:, :dims])
        return EmbedResult(rows if request.normalize is not False else rows * 3, counts, times)

    def _prompt(self, request: EmbedRequest) -> str:
        if request.prompt is not None:
            return request.prompt
        if request.prompt_name is None:
            return ""
        if request.prompt_name not in self.model.prompts:
            raise InvalidInput(f"no prompt {request.prompt_name!r}", param="prompt_name")
        return self.model.prompts[request.prompt_name]


def vector(item: str | list[int], n: int = 1) -> Rows:
    """Rows [n, DIMS] that depend on the item and nothing else."""
    seed = list(item.encode()) if isinstance(item, str) else item
    return _unit(np.random.default_rng([n, *seed]).standard_normal((n, DIMS)).astype(np.float32))


def _unit(rows: Rows) -> Rows:
    unit: Rows = np.divide(rows, np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
    return unit


def _count(item: str | list[int], prompt: str, truncate: bool | None) -> int:
    if not isinstance(item, str):
        _check_ids(item)
        return len(item) + 2
    count = len((prompt + item).split()) + 2
    if count > MAX_TOKENS and truncate is False:
        raise TextTooLong(f"a text has {count} tokens, the model takes {MAX_TOKENS}")
    return min(count, MAX_TOKENS)


def _check_ids(ids: Sequence[int]) -> None:
    outside = [i for i in ids if i >= VOCAB]
    if outside:
        raise InvalidInput(f"token id {outside[0]} is outside the vocabulary of {VOCAB}", param="input")


class Server:
    """A started app, its engine, and a client."""

    def __init__(self, changes: dict[str, object]) -> None:
        self.engine = FakeEngine()
        self.metrics = Metrics()
        self.options = msgspec.structs.replace(OPTIONS, **changes)
        self.app = App(self.engine, self.options, self.metrics, SystemClock())
        transport = httpx.ASGITransport(app=self.app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://tandem.test")

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """POST JSON; bytes go as they are."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=content, headers={"content-type": "application/json", **names})

    async def get(self, path: str, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(path, headers=names)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Server]]:
    """``serve(setting=value)`` gives a started server."""
    made: list[Server] = []

    def make(**changes: object) -> Server:
        server = Server(changes)
        server.app.readiness.started()
        made.append(server)
        return server

    yield make
    for server in made:
        await server.client.aclose()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """A server with the usual options."""
    return serve()
