"""The library: the same engine as the server's, in this process.

``Embedder`` may be used from any thread and from any event loop. Its engine lives on an event loop of its own, in a
thread; ``embed`` waits for it, ``aembed`` awaits it, and there is one way through below both.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import numpy as np

from tandem.build import build_engine
from tandem.config import Settings, checked
from tandem.engine import Engine
from tandem.errors import InvalidInput, NotReady, RequestError
from tandem.intake import ModelInfo
from tandem.types import EmbedRequest, Rows

T = TypeVar("T")

# Texts a request: enough to sort by length, few enough that the next are tokenized while these are computed.
_CHUNK = 512
_CHUNKS_AHEAD = 3


class Embedder:
    """Texts to vectors. Use it as a context manager, or call ``close``. ``engine`` lives on a loop of its own."""

    def __init__(
        self,
        model: str | None = None,
        *,
        precision: str | None = None,
        device: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Load a model: a folder, a Hugging Face id or a short name. Blocks for seconds, longer if it is fetched.

        ``device``: as ``cpu``, ``cuda:0`` or ``cpu+cuda:0``. ``settings`` is for all else, and for what is not given
        here; the default model, precision and device are its defaults.
        Raises ModelError, ConfigError, BackendFailed.
        """
        self.engine = build_engine(_settings(settings or Settings(), model, precision, device))
        self._home = _Home(self.engine)
        try:
            _wait(self._home.submit(self.engine.start))
        except BaseException:
            self._home.close(give_up=True)
            raise

    @property
    def model(self) -> ModelInfo:
        """What is loaded: id, dims, max_tokens, tier, device, prompts, fingerprint."""
        return self.engine.model

    @property
    def dimensions(self) -> int:
        return self.model.dims

    @property
    def fingerprint(self) -> str:
        """Changes when the model's files do; index what you store by it."""
        return self.model.fingerprint

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        truncate: bool | None = None,
    ) -> Rows:
        """float32 [n, d] for n texts, [d] for one string; the options are ``EmbedRequest``'s.

        Raises RequestError for what the caller can mend, ServiceError for the rest.
        """
        options = EmbedRequest(
            inputs=(),
            prompt_name=prompt_name,
            prompt=prompt,
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
        future = self._home.submit(partial(self._rows, texts, options))
        try:
            return _wait(future)
        except BaseException:
            # Ctrl-C: nobody waits for the rest of a long list.
            future.cancel()
            raise

    async def aembed(
        self,
        texts: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        truncate: bool | None = None,
    ) -> Rows:
        """As ``embed``, for an event loop of the caller's; cancelling it drops what still waits."""
        options = EmbedRequest(
            inputs=(),
            prompt_name=prompt_name,
            prompt=prompt,
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
        return await asyncio.wrap_future(self._home.submit(partial(self._rows, texts, options)))

    def close(self) -> None:
        """Finish what is under way, free the model, end the thread. Idempotent; safe from any thread but the engine's.

        Calls that begin later raise NotReady.
        """
        self._home.close(give_up=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._home.close(give_up=_interrupted(kind))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._home.close, give_up=_interrupted(kind))

    async def _rows(self, texts: str | Sequence[str], options: EmbedRequest) -> Rows:
        _check(texts)
        if isinstance(texts, str):
            row: Rows = (await self._chunk([texts], options))[0]
            return row
        wanted = options.dimensions
        # The engine refuses what is out of range, but memory for it must not be taken first.
        width = wanted if wanted is not None and 0 < wanted < self.dimensions else self.dimensions
        rows = np.empty((len(texts), width), np.float32)
        places = iter(range(0, len(texts), _CHUNK))

        async def work() -> None:
            for place in places:
                try:
                    rows[place : place + _CHUNK] = await self._chunk(texts[place : place + _CHUNK], options)
                except RequestError as error:
                    raise error.shifted(place) from None

        workers = [asyncio.ensure_future(work()) for _ in range(_CHUNKS_AHEAD)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return rows

    async def _chunk(self, texts: Sequence[str], options: EmbedRequest) -> Rows:
        result = await self.engine.embed(msgspec.structs.replace(options, inputs=list(texts)))
        assert isinstance(result.rows, np.ndarray)
        return result.rows


class _Home:
    """An engine's event loop, in a thread of its own, and the calls that are under way there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tandem-engine", daemon=True)
        self._thread.start()
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._door = threading.Lock()
        self._process_id = os.getpid()
        # A thread that the interpreter's end finds inside an engine's native code aborts the process.
        atexit.register(self._at_exit)

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Begin a call, from any thread. Raises NotReady once closed, and in a forked child, which has no thread."""
        if os.getpid() != self._process_id:
            raise NotReady("this Embedder was made before the process forked; make one in the child")
        with self._door:
            if self._closed:
                raise NotReady("this Embedder is closed")
            return asyncio.run_coroutine_threadsafe(self._call(work), self._loop)

    def close(self, *, give_up: bool) -> None:
        """See ``Embedder.close``; ``give_up`` cancels what is under way. Nothing to do in a forked child."""
        if os.getpid() != self._process_id:
            return
        with self._door:
            first, self._closed = not self._closed, True
        if first:
            try:
                _wait(asyncio.run_coroutine_threadsafe(self._finish(give_up), self._loop))
            finally:
                # Also after a Ctrl-C: who closes again must not wait for a loop that nobody stops.
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if first:
            self._loop.close()
            atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        if os.getpid() == self._process_id:
            self._engine.halt()

    async def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._calls.add(task)
        try:
            return await work()
        finally:
            self._calls.discard(task)

    async def _finish(self, give_up: bool) -> None:
        # Every call that submit() let in has been a task before this one.
        if give_up:
            for call in self._calls:
                call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._engine.close()


def _wait(future: Future[T]) -> T:
    """The result of a call. Not ``Future.result``: its condition is in Python, and a Ctrl-C that comes between two of
    its steps ends as "cannot release un-acquired lock" (seen in CPython 3.11). A lock is waited for in one step."""
    done = threading.Lock()
    done.acquire()
    future.add_done_callback(lambda _: done.release())
    done.acquire()
    return future.result()


def _check(texts: Any) -> None:
    """Arrays and columns of strings pass as lists do; what has no order or no length does not."""
    if isinstance(texts, bytes | bytearray | dict) or not (hasattr(texts, "__getitem__") and hasattr(texts, "__len__")):
        raise InvalidInput(f"texts must be a string or a list of strings, not {type(texts).__name__}", param="texts")


def _interrupted(kind: type[BaseException] | None) -> bool:
    """Whether a block ends by Ctrl-C, ``sys.exit`` or a cancelled task: nobody waits for the calls it began."""
    return kind is not None and not issubclass(kind, Exception)


def _settings(base: Settings, model: str | None, precision: str | None, device: str | None) -> Settings:
    """Without the limits of admission: who calls a library waits for it, and takes no "try again later"."""
    return checked(
        msgspec.structs.replace(
            base,
            model=base.model if model is None else model,
            precision=base.precision if precision is None else precision,
            device=base.device if device is None else device,
            max_concurrent_requests=sys.maxsize,
            max_queue_s=math.inf,
            max_queue_texts=sys.maxsize,
        )
    )
