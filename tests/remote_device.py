"""A device of the test that serves a worker process: the backend there only asks, and the answers come from here."""

from __future__ import annotations

from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from threading import Thread, local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandem.backends.base import Backend
from tandem.types import TokenBatch
from tandem.workers.base import DeviceFacts, facts_of


class RemoteBackend:
    """In the child: one connection a thread, to ``RemoteDevice``."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._mine = local()
        facts: DeviceFacts = self._ask("facts")
        self.name, self.tier, self.packing = facts.backend, facts.tier, facts.packing
        self.dims, self.hidden, self.streams = facts.dims, facts.hidden, facts.streams

    def run(self, batch: TokenBatch) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = self._ask(batch)
        return answer

    def close(self) -> None:
        self._ask("close")

    def _ask(self, question: object) -> Any:
        if not hasattr(self._mine, "line"):
            self._mine.line = Client(self._address)
        self._mine.line.send(question)
        answer = self._mine.line.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class RemoteDevice:
    """In the test: answers for ``backend`` until closed."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self._backend = backend
        self.address = str(folder / "device")
        self._listener = Listener(self.address)
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Once no child is left."""
        Client(self.address).close()
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            line = self._listener.accept()
            with suppress(EOFError):
                self._threads.append(Thread(target=self._serve, args=(line, line.recv())))
                self._threads[-1].start()
                continue
            line.close()
            return

    def _serve(self, line: Connection, question: object) -> None:
        with line, suppress(EOFError, ConnectionError):
            while True:
                line.send(self._answer(question))
                question = line.recv()

    def _answer(self, question: object) -> object:
        if question == "facts":
            return facts_of(self._backend)
        if question == "close":
            self._backend.close()
            return None
        assert isinstance(question, TokenBatch)
        try:
            return self._backend.run(question)
        except (RuntimeError, OSError) as error:
            return error
