"""What moves through the scheduler: a text as an item, a request as a group of items, a batch of them."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.batching.packing import Empty, arrange, fill
from tandem.types import EmbedRequest, Output, Packing, Priority, TokenBatch, TokenIds


class Group:
    """One request while it is under way: its rows fill up as batches end, and its future is set by the last.

    ``rows[i]`` is item i's row, or its [length, hidden] array for ``Output.TOKENS``. ``arrived`` is told of each row,
    also of one whose caller has left. A group is used by the event loop's thread alone.
    """

    __slots__ = ("arrived", "deadline_s", "future", "infer_s", "output", "pending", "priority", "queue_s", "rows")

    def __init__(self, n: int, future: Future[None], priority: Priority, output: Output) -> None:
        self.future = future
        self.priority = priority
        self.output = output
        self.deadline_s: float | None = None
        self.arrived: Callable[[int, NDArray[np.float32]], None] | None = None
        self.pending = n
        self.rows: list[NDArray[np.float32] | None] = [None] * n
        self.queue_s = 0.0
        self.infer_s = 0.0

    @property
    def departed(self) -> bool:
        """Nobody waits for it any more: the caller left, or one of its items failed."""
        return self.future.done()

    def settle(self, index: int, row: NDArray[np.float32], queue_s: float, infer_s: float) -> None:
        """Item ``index`` is computed; the group's future is set when it was the last."""
        self.rows[index] = row
        self.queue_s += queue_s
        self.infer_s += infer_s
        self.pending -= 1
        if self.arrived is not None:
            self.arrived(index, row)
        if not self.pending and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Holder(Protocol):
    """Where texts wait."""

    def remove(self, item: Item) -> None:
        """Let ``item`` wait no longer; it must wait here."""
        ...


class Item:
    """One text in the queue. ``rank`` says whose turn is first; ``skip``, the leading tokens that pooling leaves out;
    ``window``, where it waits, None before and after; ``sequence``, its number there; ``shared``: another request waits
    for it too."""

    __slots__ = ("arrived_s", "group", "ids", "index", "length", "rank", "sequence", "shared", "skip", "window")

    def __init__(self, group: Group, index: int, ids: TokenIds, skip: int) -> None:
        self.group = group
        self.index = index
        self.ids = ids
        self.length = len(ids)
        self.skip = skip
        self.rank = 0.0
        self.sequence = 0
        self.shared = False
        self.arrived_s = 0.0
        self.window: Holder | None = None


def group_of(
    request: EmbedRequest, ids: Sequence[TokenIds], skips: Sequence[int] | None, due_s: float | None
) -> tuple[Group, list[Item]]:
    """A request's texts, or those of them that have to be computed. To be called in the event loop."""
    group = Group(len(ids), get_running_loop().create_future(), request.priority, request.output)
    group.deadline_s = due_s
    return group, [
        Item(group, i, row, skip) for i, (row, skip) in enumerate(zip(ids, skips or repeat(0), strict=False))
    ]


def packing_of(packing: Packing, output: Output) -> Packing:
    """The packing of a device's batches for that output: rows of several texts are for pooled output alone."""
    return Packing.ONE_A_ROW if output is Output.TOKENS and packing is Packing.ROWS else packing


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Items that run together; padded to ``width`` tokens, where rows are not packed. ``tokens``, their sum without
    padding. What became of it before (``retries.py``): ``failed_on``, devices that answered it with an error; ``home``,
    the device where it should be run again, if that matters; ``suspect``, it is run with nothing beside it, and
    ``losses``, how often a device went down with it then.
    """

    items: Sequence[Item]
    width: int
    output: Output
    failed_on: frozenset[str] = frozenset()
    home: str = ""
    suspect: bool = False
    losses: int = 0

    @property
    def tokens(self) -> int:
        return sum(item.length for item in self.items)

    def halves(self) -> tuple[Batch, Batch]:
        """The batch as two, for the texts that share one with a bad text."""
        middle = len(self.items) // 2
        return (
            msgspec.structs.replace(self, items=self.items[:middle]),
            msgspec.structs.replace(self, items=self.items[middle:]),
        )

    def arrays(self, pad_id: int, packing: Packing, max_width: int, empty: Empty | None = None) -> TokenBatch:
        """What a device of that packing runs. ``max_width``: the widest row that the model takes. ``empty`` gives the
        array for the ids, by shape."""
        lengths = [item.length for item in self.items]
        layout = arrange(lengths, packing_of(packing, self.output), self.width, max_width)
        skips = [item.skip for item in self.items]
        return TokenBatch(
            ids=fill(layout, (item.ids for item in self.items), pad_id, empty),
            lengths=np.array(lengths, np.int32),
            places=np.array(layout.starts, np.int32),
            skips=np.array(skips, np.int32) if any(skips) else None,
            output=self.output,
        )
