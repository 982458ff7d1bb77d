"""Batches through the model: reading goes ahead of it, and a text that it refuses is found in its window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np

from tandem.bulk.base import Batch
from tandem.errors import JobError, RequestError
from tandem.types import Rows

T = TypeVar("T")

Embed: TypeAlias = Callable[[list[str]], Rows]
"""Texts to float32 [n, d]. Raises RequestError when one of the texts can not be embedded."""


@dataclass(frozen=True)
class Embedding:
    """A model as a job sees it. ``settings`` are all that decides its vectors, by the names people know them by."""

    embed: Embed
    dimensions: int
    settings: Mapping[str, str] = field(default_factory=dict)


def read_ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """``items`` in order, the next ``depth`` being made in another thread meanwhile."""
    end: list[T] = []  # A value that no item is.
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:

        def submit() -> Future[T | list[T]]:
            return pool.submit(lambda: next(items, end))

        ahead = deque(submit() for _ in range(depth))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(submit())
            yield item  # type: ignore[misc]  # not the end, so an item


def embed_batch(batch: Batch, embedding: Embedding) -> tuple[Rows, dict[int, str]]:
    """float32 [n, d], NaN where there is no vector, and why: the reader's reasons and the model's.

    Raises JobError when the model's answer has the wrong shape or is not finite, and whatever of ``TandemError`` the
    model raises that no single text can be blamed for.
    """
    rows = np.full((len(batch.texts), embedding.dimensions), np.nan, np.float32)
    reasons = dict(batch.reasons)
    wanted = [(index, text) for index, text in enumerate(batch.texts) if text is not None]
    pending = [wanted] if wanted else []
    while pending:
        part = pending.pop()
        try:
            found = embedding.embed([text for _, text in part])
        except RequestError as error:
            # Who it was is not said, so halve until one is left: 11 more calls for one bad text in 2,048.
            if len(part) == 1:
                reasons[part[0][0]] = error.about("the text")
            else:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]
            continue
        indices = [index for index, _ in part]
        rows[indices] = _checked(found, len(part), embedding.dimensions)
    return rows, reasons


def _checked(rows: Rows, n: int, dimensions: int) -> Rows:
    if rows.shape != (n, dimensions):
        raise JobError(f"the model gave an array of shape {rows.shape} for {n} texts of {dimensions} dimensions")
    if not np.isfinite(rows).all():
        raise JobError("the model gave a vector that is not finite; nothing of this batch was kept")
    return rows
