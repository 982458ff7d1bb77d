"""A semantic cache with a clock that is moved by hand, vectors at chosen angles, and a disk without room."""

from __future__ import annotations

import math
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from tandem.clock import ManualClock
from tandem.semantic import Item, Namespace, SemanticCache, SemanticOptions
from tandem.semantic.base import Vector
from tandem.semantic.records import Recorder
from tandem.vectors.base import Index, IndexOptions
from tandem.vectors.linear import LinearIndex

HERE = Namespace("tenant", "answers")


class Calendar(ManualClock):
    """Its calendar may be set without time going on."""

    def __init__(self, start_s: float = 1_000.0) -> None:
        super().__init__(start_s)
        self.calendar_s = 1_800_000_000.0

    def wall(self) -> float:
        return self.calendar_s + self.now()


def linear(dims: int) -> Index:
    return LinearIndex(IndexOptions(dims=dims, storage="float32"))


def cache(
    clock: Calendar | None = None,
    recorder: Recorder | None = None,
    options: SemanticOptions | None = None,
    make_index: Callable[[int], Index] = linear,
) -> SemanticCache:
    return SemanticCache(options or SemanticOptions(), make_index, clock or Calendar(), recorder)


def at(degrees: float, dims: int = 4) -> Vector:
    """A vector at this angle from the first axis: cosines between two are those of the differences."""
    found = np.zeros(dims, np.float32)
    found[:2] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return found


def item(
    degrees: float = 0.0, payload: bytes = b"1", *, entry_id: str | None = None, ttl_s: float | None = None
) -> Item:
    return Item(vector=at(degrees), payload=payload, id=entry_id, ttl_s=ttl_s)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond ``room`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
