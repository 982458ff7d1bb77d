"""The buffers of a serving run, in the order in which they come and go: what an allocator is asked for."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.bench.ceiling import cut_batches
from tandem.config import Settings
from tandem.models.loaded import LoadedModel
from tandem.types import Packing, TokenBatch, TokenIds

# A closed loop of so many callers on a device that computes two batches side by side, with a third one staged.
CALLERS, STREAMS, STAGED = 256, 2, 1
# Of requests: one question, a list as of a retriever, a list as of a bulk client. (share, fewest texts, most)
_KINDS = ((0.7, 1, 1), (0.2, 2, 16), (0.1, 32, 128))
GIVE = -1


class Trace(msgspec.Struct, frozen=True):
    """``events``: (buffer, its bytes) where one is taken, (buffer, ``GIVE``) where it comes back; all come back."""

    requests: int
    batches: int
    events: list[tuple[int, int]]

    @property
    def takes(self) -> int:
        return sum(nbytes != GIVE for _, nbytes in self.events)

    def live_bytes(self) -> list[int]:
        """The bytes that are out after each take."""
        sizes: dict[int, int] = {}
        live, found = 0, []
        for buffer, nbytes in self.events:
            if nbytes == GIVE:
                live -= sizes.pop(buffer)
            else:
                sizes[buffer] = nbytes
                live += nbytes
                found.append(live)
        return found


class FlatFake(FakeBackend):
    """Stands for a device that takes batches without padding."""

    packing = Packing.FLAT


def requests_of(texts: Sequence[TokenIds], questions: Sequence[TokenIds], n: int, seed: int) -> list[list[TokenIds]]:
    """``n`` requests of the kinds above, texts and questions drawn at random."""
    rng = np.random.default_rng(seed)
    found = []
    for kind in rng.choice(len(_KINDS), n, p=[share for share, _, _ in _KINDS]).tolist():
        _, fewest, most = _KINDS[kind]
        source = texts if kind else questions
        found.append([source[i] for i in rng.integers(0, len(source), rng.integers(fewest, most + 1)).tolist()])
    return found


def record(settings: Settings, model: LoadedModel, requests: Sequence[Sequence[TokenIds]], dims: int) -> Trace:
    """Drive the scheduler's core over ``requests`` and note every buffer of each batch.

    Inputs (ids, lengths, places) and the device's rows live from the cut to the end of the batch; the host's copy of
    the rows until the last request that has a text among them is answered.
    """
    backend = FlatFake(FakeOptions(streams=STREAMS, dims=dims))
    batches = cut_batches(settings, model, requests, CALLERS, backend)
    owners: defaultdict[tuple[int, ...], deque[int]] = defaultdict(deque)
    for number, request in enumerate(requests):
        for ids in request:
            owners[tuple(ids)].append(number)
    waiting = [len(request) for request in requests]
    book = _Book(dims)
    for batch in batches:
        book.begin(batch, [owners[tuple(ids.tolist())].popleft() for ids in batch.texts()])
        if len(book.running) > STREAMS + STAGED:
            book.end(waiting)
    while book.running:
        book.end(waiting)
    return Trace(len(requests), len(batches), book.events)


class _Book:
    def __init__(self, dims: int) -> None:
        self.events: list[tuple[int, int]] = []
        self.running: deque[tuple[list[int], int, list[int]]] = deque()
        self._dims = dims
        self._buffers = 0
        # Rows that wait for their requests: buffer -> requests, request -> buffers.
        self._held: dict[int, set[int]] = {}
        self._holds: defaultdict[int, set[int]] = defaultdict(set)

    def take(self, nbytes: int) -> int:
        self._buffers += 1
        self.events.append((self._buffers, nbytes))
        return self._buffers

    def begin(self, batch: TokenBatch, requests: list[int]) -> None:
        rows_bytes = 4 * self._dims * len(batch.lengths)
        inputs = [batch.ids.nbytes, batch.lengths.nbytes, batch.starts().nbytes]
        self.running.append(([self.take(nbytes) for nbytes in [*inputs, rows_bytes]], rows_bytes, requests))

    def end(self, waiting: list[int]) -> None:
        """The oldest batch ends; ``waiting``: texts that each request has still to come."""
        buffers, rows_bytes, requests = self.running.popleft()
        rows = self.take(rows_bytes)
        self._held[rows] = set(requests)
        self.events += [(buffer, GIVE) for buffer in buffers]
        for request in requests:
            waiting[request] -= 1
            self._holds[request].add(rows)
        for request in set(requests):
            if not waiting[request]:
                self.events += [(buffer, GIVE) for buffer in self._answered(request)]

    def _answered(self, request: int) -> Iterator[int]:
        for rows in sorted(self._holds.pop(request)):
            self._held[rows].discard(request)
            if not self._held[rows]:
                yield rows
